"""stdout, for a reply and nothing else."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from textwrap import fill
from typing import Final, TextIO

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNESCAPED: Final = re.compile(r"[\x7f-\x9f]")  # control characters that JSON leaves as they are
_CLOSED: Final = (errno.EPIPE, errno.EINVAL)  # Windows says EINVAL


class PipeClosedError(Exception):
    """Whoever read stdout has closed it."""


class Output:
    """Writes text to stdout, and flushes it.

    A terminal gets no control characters: a site must not be able to drive it. Everything else,
    a pipe or a file, gets the exact text as UTF-8.

    :raises OSError: if this process was started without a stdout
    """

    def __init__(self) -> None:
        stream: TextIO | None = sys.stdout
        if stream is None:
            raise OSError(errno.EBADF, "there is no stdout to write the reply to")
        self.terminal = stream.isatty()
        self._stream = stream
        self._at_line_start = True

    def write(self, text: str) -> None:
        """Write, and wait until it is written: a reader that is behind holds this up.

        :raises PipeClosedError: if nobody reads stdout any more
        :raises OSError: if stdout can not be written for another reason
        """
        self._at_line_start = text.endswith("\n")
        self._put(visible(text) if self.terminal else text)

    def draw(self, text: str) -> None:
        """Write what drives the terminal; nothing of a site's, but by `visible`. Then as `write`.

        The cursor is to be at the start of a line in the end.
        """
        self._at_line_start = True
        self._put(text)

    def end_line(self) -> None:
        """End the line, unless the text has ended it."""
        if not self._at_line_start:
            self.write("\n")

    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal, as it is now."""
        return _size(self._stream)

    def line(self, text: str, *, indent: int = 0) -> None:
        """Write a line of our own, `wrapped`. Then as `write`."""
        self.write(wrapped(text, self._stream, indent=indent) + "\n")

    def _put(self, text: str) -> None:
        try:
            if self.terminal:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            else:
                # A lone surrogate, which an error answer can hold, becomes a JSON escape.
                self._stream.buffer.write(text.encode("utf-8", "backslashreplace"))
            self._stream.flush()
        except OSError as error:
            self._discard()
            if error.errno in _CLOSED:
                raise PipeClosedError from None
            raise OSError(error.errno, f"can not write to stdout: {error.strerror}") from None

    def _discard(self) -> None:
        """Drop what is buffered; the interpreter would complain about it when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def visible(text: str) -> str:
    r"""The text with control characters, but for newlines and tabs, spelled out: `\x1b`."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r", ""))


def wrapped(text: str, stream: TextIO | None, *, indent: int = 0) -> str:
    """A line, broken between words if the stream is a terminal that is too narrow for it.

    :param indent: of what goes on below
    """
    if stream is None or not stream.isatty():
        return text
    return fill(
        text,
        _size(stream).columns,
        subsequent_indent=" " * indent,
        break_long_words=False,  # an address, a path
        break_on_hyphens=False,
    )


def _size(stream: TextIO) -> os.terminal_size:
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except OSError:
        columns = lines = 0
    return os.terminal_size((columns or 80, lines or 24))


def json_line(value: object) -> str:
    """The value as JSON in one line, which drives no terminal either."""
    line = json.dumps(value, ensure_ascii=False)
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n"
