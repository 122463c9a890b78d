"""The prompt: from files, the argument and stdin."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from ._exit_codes import say

PATIENCE: Final = 2.0
"""Time after which a message says that the command waits for stdin, in seconds."""

FILE_LIMIT: Final = 4 * 1024 * 1024
"""Maximum size of a file before the prompt, in bytes. By default, sites refuse larger requests."""


def read_prompt(argument: str | None, files: Sequence[str] = ()) -> str:
    """Return the files, the argument and all of stdin, joined by blank lines.

    A terminal is read only if the argument or a file is `-`, which stands for stdin.

    :param files: Paths of files. If one is `-`, stdin is not read as a part of its own.
    :raises click.UsageError: If there is no text, or a part is not text.
    """
    if (*files, argument).count("-") > 1:
        raise click.UsageError("- is stdin, which can be read only once.")
    read = [_read_file(path) for path in files]
    if argument == "-":
        piped, argument = _decoded(_read_all(), "stdin"), None
    elif "-" in files:
        piped = None
    else:
        piped = _read_pipe(hint=argument is not None or bool(files))
    own = [part for part in (argument, piped) if part]
    if not "".join([*(text for _, text in read), *own]).strip():
        raise click.UsageError(
            'the prompt is empty: give it as an argument, gprochat ask "Hello", or pipe it into'
            " stdin."
        )
    return "\n\n".join([*(f"File {name}:\n{text}" for name, text in read), *own])


def _read_file(path: str) -> tuple[str, str]:
    """Return the name of a file and its text."""
    name = "stdin" if path == "-" else click.format_filename(path)
    if path == "-":
        data = _read_all(FILE_LIMIT + 1)
    else:
        try:
            with Path(path).open("rb") as file:
                data = file.read(FILE_LIMIT + 1)
        except OSError as error:
            raise click.UsageError(f"cannot read {name}: {error.strerror}.") from None
    if len(data) > FILE_LIMIT:
        raise click.UsageError(
            f"{name} is larger than {FILE_LIMIT // 1024 // 1024} MiB; give a part of it."
        )
    return name, _decoded(data, name)


def _read_all(limit: int = -1) -> bytes:
    """Return all of stdin. At a terminal, first say how to end it."""
    if sys.stdin is None:
        raise click.UsageError("there is no stdin to read.")
    if sys.stdin.isatty():
        say("type the text; Ctrl-D at the start of a line ends it")
    try:
        return sys.stdin.buffer.read(limit)
    except OSError as error:
        raise click.UsageError(f"cannot read stdin: {error.strerror}.") from None


def _decoded(data: bytes, name: str) -> str:
    """Return the text of a file or of stdin, to which the rules of an argument apply."""
    if b"\0" in data:
        raise click.UsageError(f"{name} is not a text: byte {data.index(0)} is 0.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{name} is not UTF-8 text, from byte {error.start} on.") from None
    return text.rstrip("\r\n")


def _read_pipe(*, hint: bool) -> str | None:
    if sys.stdin is None or sys.stdin.isatty():
        return None
    # An inherited stdin that never ends, as under ssh, would look like a slow site.
    timer = threading.Timer(
        PATIENCE,
        say,
        ["waiting for the rest of the prompt from stdin; add `< /dev/null` if there is none"],
    )
    timer.daemon = True
    if hint:
        timer.start()
    try:
        return _decoded(sys.stdin.buffer.read(), "stdin")
    finally:
        timer.cancel()
