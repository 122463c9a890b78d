"""The prompt: from the argument, from stdin, or from both."""

from __future__ import annotations

import sys
import threading
from typing import Final

import click

from ._exits import say

PATIENCE: Final = 2.0
"""Seconds of waiting for stdin after which a person is told so."""


def read_prompt(argument: str | None) -> str:
    """The argument, a blank line, and all of stdin, unless that is a terminal.

    :raises click.UsageError: if there is neither, or stdin is no UTF-8
    """
    piped = _read_stdin(hint=argument is not None)
    if argument is None and piped is None:
        raise click.UsageError("no prompt: give it as an argument, or pipe it into stdin.")
    return "\n\n".join(part for part in (argument, piped) if part)


def _read_stdin(*, hint: bool) -> str | None:
    if sys.stdin is None or sys.stdin.isatty():
        return None
    # A stdin that was inherited and never ends, as under ssh, would look like a slow site.
    timer = threading.Timer(
        PATIENCE,
        say,
        ["waiting for the end of stdin, which belongs to the prompt; `< /dev/null` gives none"],
    )
    timer.daemon = True
    if hint:
        timer.start()
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"stdin is no UTF-8 text, from byte {error.start} on.") from None
    finally:
        timer.cancel()
