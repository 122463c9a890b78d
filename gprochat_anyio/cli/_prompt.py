"""The prompt: from files, the argument and stdin."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from ._exits import say

PATIENCE: Final = 2.0
"""Seconds of waiting for stdin after which a person is told so."""

FILE_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of a file that goes before the prompt; a site takes no longer request by itself."""


def read_prompt(argument: str | None, files: Sequence[str] = ()) -> str:
    """Return the files, the argument and all of stdin, unless that is a terminal.

    Blank lines are between them.

    :param files: paths; `-` is stdin, which is then not read as a part of its own
    :raises click.UsageError: if there is none of them, or one is not a text
    """
    if files.count("-") > 1:
        raise click.UsageError("- is stdin, which can be read only once.")
    parts = [_read_file(path) for path in files]
    piped = None if "-" in files else _read_stdin(hint=argument is not None or bool(files))
    if argument is None and piped is None and not parts:
        raise click.UsageError("no prompt: give it as an argument, or pipe it into stdin.")
    return "\n\n".join(part for part in (*parts, argument, piped) if part)


def _read_file(path: str) -> str:
    """Return the text of a file, below a line that names it."""
    name = "stdin" if path == "-" else click.format_filename(path)
    try:
        if path != "-":
            with Path(path).open("rb") as file:
                data = file.read(FILE_LIMIT + 1)
        elif sys.stdin is None:
            raise click.UsageError("there is no stdin to read.")
        else:
            data = sys.stdin.buffer.read(FILE_LIMIT + 1)
    except OSError as error:
        raise click.UsageError(f"can not read {name}: {error.strerror}.") from None
    if len(data) > FILE_LIMIT:
        raise click.UsageError(
            f"{name} is larger than {FILE_LIMIT // 1024 // 1024} MiB; give a part of it."
        )
    if b"\0" in data:
        raise click.UsageError(f"{name} is not a text: byte {data.index(0)} is 0.")
    return f"File {name}:\n{_decoded(data, name)}"


def _decoded(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{name} is no UTF-8 text, from byte {error.start} on.") from None
    return text.rstrip("\r\n")


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
        return _decoded(sys.stdin.buffer.read(), "stdin")
    finally:
        timer.cancel()
