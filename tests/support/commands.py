"""Commands in processes of their own: their output, their end, and a terminal for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from .raw_site import BOUND


def read_until(stream: int | IO[bytes] | None, wanted: bytes) -> bytes:
    """Return a stream's output up to and including `wanted`. `running` bounds the wait."""
    assert stream is not None
    got = b""
    while wanted not in got:
        piece = os.read(stream if isinstance(stream, int) else stream.fileno(), 1024)
        assert piece, f"ended after {got!r}"
        got += piece
    return got


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Return the exit status, and the rest of stdout and stderr."""
    out, err = process.communicate(timeout=BOUND)
    return process.returncode, out, err


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Yield the two ends of a pseudo-terminal of 80x24: the user's and the command's."""
    import pty  # noqa: PLC0415 - not on Windows
    import termios  # noqa: PLC0415

    person, command = pty.openpty()
    termios.tcsetwinsize(command, (24, 80))
    try:
        yield person, command
    finally:
        os.close(person)
        os.close(command)
