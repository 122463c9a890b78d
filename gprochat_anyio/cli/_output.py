"""Standard output, for results only."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from textwrap import fill
from typing import Final, TextIO

# The bidirectional controls can show a text in another order than that of its characters.
_CONTROLS: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_UNESCAPED: Final = re.compile(r"[\x7f-\x9f]")  # control characters that JSON leaves as they are
_CLOSED: Final = (errno.EPIPE, errno.EINVAL)  # Windows says EINVAL


class PipeClosedError(Exception):
    """Closing of stdout by its reader."""


class Output:
    """The process's stdout. Each write is flushed.

    A terminal gets no control characters, so that a site cannot control it. A pipe or a file gets
    the exact text as UTF-8.

    :raises OSError: If the process was started without a stdout.
    """

    def __init__(self) -> None:
        stream: TextIO | None = sys.stdout
        if stream is None:
            raise OSError(errno.EBADF, "there is no stdout to write to")
        self.terminal = stream.isatty()
        self._stream = stream
        self._at_line_start = True

    def write(self, text: str) -> None:
        """Write a text, and wait until it is written. A slow reader blocks this.

        :raises PipeClosedError: If the reader has closed stdout.
        :raises OSError: If stdout cannot be written for another reason.
        """
        self._at_line_start = text.endswith("\n")
        self._put(visible(text) if self.terminal else text)

    def draw(self, text: str) -> None:
        """Write control sequences. They must contain a site's text only through `visible`.

        The cursor must end at the start of a line. Raises as `write`.
        """
        self._at_line_start = True
        self._put(text)

    def end_line(self) -> None:
        """End the line, unless the cursor is at the start of one."""
        if not self._at_line_start:
            self.write("\n")

    def size(self) -> os.terminal_size:
        """Return the terminal's current columns and lines."""
        return _size(self._stream)

    def line(self, text: str, *, indent: int = 0) -> None:
        """Write a line, wrapped between words if stdout is a terminal. Raises as `write`."""
        self.write(wrapped(text, self._stream, indent=indent) + "\n")

    def _put(self, text: str) -> None:
        try:
            if self.terminal:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            else:
                # A lone surrogate, which an error response can hold, becomes a JSON escape.
                self._stream.buffer.write(text.encode("utf-8", "backslashreplace"))
            self._stream.flush()
        except OSError as error:
            self._discard()
            if error.errno in _CLOSED:
                raise PipeClosedError from None
            raise OSError(error.errno, f"cannot write to stdout: {error.strerror}") from None

    def _discard(self) -> None:
        """Drop the buffered text, about which the interpreter would complain at exit."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def visible(text: str) -> str:
    r"""Return the text with control characters escaped, except newlines and tabs.

    Those of ASCII and Latin-1 look like `\x1b`, those of bidirectional text like `\u202e`. The
    letters of such text stay as they are.
    """
    return _CONTROLS.sub(lambda found: _escaped(ord(found[0])), text.replace("\r", ""))


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def wrapped(text: str, stream: TextIO | None, *, indent: int = 0) -> str:
    """Return a line, wrapped between words if the stream is a terminal.

    :param indent: Spaces before the lines below the first one.
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
    """Return the value as one line of JSON without control characters."""
    line = json.dumps(value, ensure_ascii=False)
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n"
