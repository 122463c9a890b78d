"""Servers in processes of their own."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running(command: list[str], folder: Path, listener: socket.socket | None) -> Iterator[None]:
    """Run a server in its own process, with the listening socket as descriptor 3."""
    shell = f"exec {' '.join(command)} 3<&{listener.fileno() if listener else 0}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            ["/bin/bash", "-c", shell],
            cwd=folder,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()] if listener else [],
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def free_port() -> int:
    """Return a port for a server that binds it itself."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(port: int) -> bool:
    """Return True once such a server accepts connections, or False after about 5 s."""
    for _ in range(250):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)  # another process can only be polled
        else:
            return True
    return False
