"""What is wrong with an output file."""

from __future__ import annotations

from gprochat_anyio import GPROChatError


class OutputError(GPROChatError):
    """The output file can not be continued: it holds other lines than a batch's, or is no file.

    It was left as it is.
    """


class OutputBusyError(OutputError):
    """Another run is writing this output."""
