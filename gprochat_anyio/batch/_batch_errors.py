"""Errors of a batch's output and of its shards."""

from __future__ import annotations

from gprochat_anyio import GPROChatError


class OutputError(GPROChatError):
    """The output cannot be written: it is not a regular file, has lines of no batch, or was moved.

    A file with other lines is left unchanged.
    """


class OutputBusyError(OutputError):
    """Another run is writing the output."""


class ShardLostError(GPROChatError):
    """A shard's process was lost too often, or the cluster could not run it.

    The outcomes so far are in the shard's part file. Run the batch again to continue.
    """
