"""The load server: building and running it, and reading its counters."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).with_name("server.c")


class NoCompilerError(Exception):
    """The load server cannot be built, because there is no C compiler."""


@contextmanager
def built() -> Iterator[Path]:
    """Build the load server in a temporary folder. Return its path."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompilerError(
            "the load server is a C program, but there is no C compiler; install one "
            "(Debian: apt-get install gcc libc6-dev) and run this again"
        )
    with tempfile.TemporaryDirectory(prefix="gprochat-bench-") as folder:
        program = Path(folder, "load-server")
        subprocess.run([compiler, "-O2", "-o", program, _SOURCE], check=True)
        yield program


@contextmanager
def running(program: Path, *, core: int, lifetime: int) -> Iterator[int]:
    """Start a load server, and return its port. It ends with the block, or with this process.

    :param core: The core that it is pinned to.
    :param lifetime: Time after which it ends in any case, in seconds.
    """
    command = [str(program), str(core), str(lifetime)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


class Control:
    """Control connection to a load server, which does not count it. All methods block."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")

    def stats(self) -> dict[str, Any]:
        """Return the server's CPU time, numbers of connections and replies, and last close."""
        return self._get("/stats")

    def release(self) -> None:
        """Continue the replies that `hold=1` has stopped after their first write."""
        self._get("/release")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _get(self, path: str) -> dict[str, Any]:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: load\r\n\r\n".encode())
        length = 0
        while (line := self._file.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body: dict[str, Any] = json.loads(self._file.read(length))
        return body
