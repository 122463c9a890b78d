"""The embedded site's server and uvicorn (with h11), both with the same application.

    python benchmarks/site_server.py            # everything, about two minutes
    python benchmarks/site_server.py --quick    # only check that it works

This needs Linux, two idle cores, and uvicorn. The server runs on the first core, the load on the
last one. Each measurement uses a fresh server. Rounds are interleaved, and each figure is the
median over the rounds.
"""

from __future__ import annotations

import argparse
import logging
import re
import resource
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import machine

from gprochat_anyio import Message
from gprochat_anyio._wire.gprochat import encode_generate

_IDLE = 0.01  # seconds of CPU in 0.3 s; an idle uvicorn uses a little

SERVERS = ("uvicorn", "asyncio", "trio", "uvloop")
CONNECTIONS = 32
WHOLE = re.compile(
    rb"HTTP/1.1 200.*?\r\n(content-length: (?P<size>\d+)(?=\r\n).*?\r\n\r\n(?P<body>.*)"
    rb"|transfer-encoding: chunked(?=\r\n).*\r\n0\r\n\r\n)",
    re.DOTALL | re.IGNORECASE,
)

GENERATE = encode_generate([Message("user", "one two three four")], secret_key="", password=None)
REQUESTS = {
    "bare": b"GET /bare HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "/healthz": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "/api/generate": b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: "
    + b"%d\r\n\r\n%b" % (len(GENERATE), GENERATE),
}


def application() -> Any:
    """Return the site, with a further path whose response costs next to nothing."""
    from gprochat_anyio.site import create_app, echo_model

    site = create_app(echo_model)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/bare":
            await site(scope, receive, send)
            return
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    return app


def serve(kind: str) -> None:
    """Print a port, and serve the application on it until the process is killed."""
    machine.pin(machine.cores()[0])
    logging.disable(logging.WARNING)
    app = application()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        if kind == "uvicorn":
            import uvicorn

            config = uvicorn.Config(app, http="h11", loop="asyncio", access_log=False)
            config.log_level = "error"
            uvicorn.Server(config).run(sockets=[listener])
        else:
            import anyio

            from gprochat_anyio.site._connection_owner import ServerLimits
            from gprochat_anyio.site._server import Server

            # uvicorn never closes a connection without a request
            limits = ServerLimits(idle_seconds=600)

            async def main() -> None:
                await Server(app, listener, limits).run(lambda: None, None, 0)

            options = {"use_uvloop": True} if kind == "uvloop" else {}
            backend = "trio" if kind == "trio" else "asyncio"
            anyio.run(main, backend=backend, backend_options=options)


@contextmanager
def running(kind: str) -> Iterator[tuple[int, int]]:
    """Start a server, and return its port and process id. It ends with the block."""
    command = [sys.executable, __file__, "--serve", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        try:
            yield port, process.pid
        finally:
            process.kill()


class Load:
    """Load of keep-alive connections that repeat one request."""

    def __init__(self, port: int, request: bytes) -> None:
        self._request = request
        self._sockets = {}
        self._poll = select.epoll()
        for _ in range(CONNECTIONS):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[sock.fileno()] = sock
            self._poll.register(sock, select.EPOLLIN)
        self._size = self._measure(next(iter(self._sockets.values())))

    def _measure(self, sock: socket.socket) -> int:
        """Return the size of a response. All responses have the same size."""
        sock.sendall(self._request)
        response = b""
        while not (found := WHOLE.fullmatch(response)) or (
            found["size"] and len(found["body"]) < int(found["size"])
        ):
            response += sock.recv(1 << 16)
        return len(response)

    def run(self, seconds: float) -> int:
        """Send requests for that time, and return the number of responses."""
        missing = dict.fromkeys(self._sockets, self._size)
        for sock in self._sockets.values():
            sock.sendall(self._request)
        done = 0
        until = time.monotonic() + seconds
        while missing:
            for fd, _ in self._poll.poll(5):
                missing[fd] -= len(self._sockets[fd].recv(1 << 16))
                if missing[fd]:
                    continue
                done += 1
                if time.monotonic() < until:
                    missing[fd] = self._size
                    self._sockets[fd].sendall(self._request)
                else:
                    del missing[fd]
        return done

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._poll.close()


def memory_of(process: int) -> int:
    """Return the resident memory of a process, in bytes."""
    pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def responses_per_second(kind: str, what: str, seconds: float) -> float:
    """Return the number of responses per second of the server's CPU time.

    This is the rate that it would reach on a core of its own, however busy the machine is.
    """
    with running(kind) as (port, process):
        load = Load(port, REQUESTS[what])
        load.run(seconds / 5)  # warms up
        before = cpu_of(process)
        responses = load.run(seconds)
        load.close()
        return responses / (cpu_of(process) - before)


def bytes_per_idle_connection(kind: str, connections: int) -> float:
    """Return the memory of each connection without a request, in bytes."""
    with running(kind) as (port, process):
        Load(port, REQUESTS["/healthz"]).close()
        before = memory_of(process)
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
        settle(process)
        used = memory_of(process) - before
        for sock in idle:
            sock.close()
        return used / connections


def bytes_left_by_vanished(kind: str, clients: int) -> float:
    """Return the memory that stays after clients reset connections amid a request, in bytes."""
    with running(kind) as (port, process):
        Load(port, REQUESTS["/healthz"]).close()
        before = memory_of(process)
        for _ in range(clients):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(REQUESTS["/healthz"][:30])
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        settle(process)
        Load(port, REQUESTS["/healthz"]).close()
        return memory_of(process) - before


def settle(process: int) -> None:
    """Wait until a process is idle."""
    used = -1.0
    while (now := cpu_of(process)) - used > _IDLE:
        used = now
        time.sleep(0.3)


def cpu_of(process: int) -> float:
    """Return the CPU time of a process, in seconds."""
    return int(Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default 5)")
    parser.add_argument("--servers", default=",".join(SERVERS), help="measure only these servers")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return
    machine.pin(machine.cores()[1])
    seconds, clients = (0.2, 100) if chosen.quick else (2.0, 10_000)
    clients = min(clients, machine.most_open_files() - 100)
    figures: dict[str, Callable[[str], float]] = {
        f"{what}, responses/s": partial(responses_per_second, what=what, seconds=seconds)
        for what in REQUESTS
    }
    figures[f"bytes a connection, {clients} idle"] = partial(
        bytes_per_idle_connection, connections=clients
    )
    figures["bytes left by 1,000 clients that vanish"] = partial(
        bytes_left_by_vanished, clients=1000
    )
    rounds = 1 if chosen.quick else chosen.rounds
    for name, measure in figures.items():
        results: dict[str, list[float]] = {kind: [] for kind in chosen.servers.split(",")}
        for _ in range(rounds):
            for kind, values in results.items():
                values.append(measure(kind))
        base = statistics.median(next(iter(results.values()))) or 1
        for kind, values in results.items():
            middle = statistics.median(values)
            print(f"{name:42} {kind:8} {middle:10.0f}   {middle / base:5.2f}", flush=True)


if __name__ == "__main__":
    main()
