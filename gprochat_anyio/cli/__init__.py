"""The `gprochat` command. It needs the extra `cli`."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_INTERRUPTED = 130


def main() -> None:
    """Run the command with the arguments of this process, and end the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored: nohup
        signal.signal(signal.SIGINT, _stop_at_once)
    try:
        from ._main import gprochat  # noqa: PLC0415 - click may be missing
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("gprochat: this command needs click; pip install 'gprochat-anyio[cli]'")
    gprochat(prog_name="gprochat")


def _stop_at_once(*_: object) -> NoReturn:
    """End the process immediately, even if its threads are blocked.

    A KeyboardInterrupt would wait for a name lookup or a full pipe, and print tracebacks. Nothing
    is lost: each piece of text has been flushed, and the system closes the connections.
    """
    if os.isatty(2):
        os.write(2, b"\n")  # the terminal has shown ^C on the current line
    os._exit(_INTERRUPTED)
