"""A scripted site in a thread, for commands with an event loop or a process of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from .embedded_site import PACKAGE_PATH

BOUND = 20.0
"""Timeout of every wait in these tests, in seconds. None takes more than a fraction of it."""

INTERRUPTIBLE = (
    "import signal as s; s.signal(s.SIGINT, s.default_int_handler); "
    "hasattr(s, 'SIGHUP') and s.signal(s.SIGHUP, s.SIG_DFL)"
)
"""Code that restores signals. Tests may run with ignored ones, as in a background job."""

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"

Answer = Callable[["Exchange"], None]


class Exchange:
    """One connection, after its request was read."""

    def __init__(self, connection: socket.socket, head: str, body: Any) -> None:
        self.head = head
        self.body = body
        self._connection = connection

    @property
    def prompt(self) -> str:
        if self.body is None:  # a GET request
            return ""
        messages = self.body.get("messages") or self.body["contents"]  # Gemini's
        last = messages[-1]
        text: str = last["parts"][0]["text"] if "parts" in last else last["content"]  # OpenAI's
        return text

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def text(self, *texts: str) -> None:
        """Send each text as one HTTP chunk."""
        for data in map(str.encode, texts):
            self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def until_left(self) -> None:
        """Wait until the client has closed or reset the connection."""
        with suppress(ConnectionError):
            while self._connection.recv(4096):
                pass


def replying(*texts: str) -> Answer:
    """Return the behaviour of a site that sends a complete reply."""

    def answer(exchange: Exchange) -> None:
        exchange.send(HEAD)
        exchange.text(*texts)
        exchange.send(END)

    return answer


class Held:
    """A site that holds the reply back after its first text, until it is released."""

    def __init__(self, first: str = "first ") -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self._first = first

    def __call__(self, exchange: Exchange) -> None:
        self.asked.set()
        if self._first:
            exchange.send(HEAD)
            exchange.text(self._first)
        assert self.go_on.wait(BOUND)
        exchange.text("rest")
        exchange.send(END)


def sending(data: bytes) -> Answer:
    """Return the behaviour of a site that sends these bytes and closes."""
    return lambda exchange: exchange.send(data)


def failing(status: int, message: str) -> Answer:
    """Return the behaviour of a site that responds with an error."""
    body = json.dumps({"error": {"message": message}}).encode()
    return sending(b"HTTP/1.1 %d E\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


class RawSite:
    """A site that handles one request per connection by calling `answer`."""

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        host, port = listener.getsockname()
        self.url = f"http://{host}:{port}"
        self.prompts: list[str] = []
        self.bodies: list[Any] = []
        self.heads: list[str] = []
        self._listener = listener
        self._answer = answer
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        # Wakes `accept`, which closing the listener would not do on every platform.
        with socket.create_connection(self._listener.getsockname(), BOUND):
            pass
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(BOUND)
                    if not self._serve(connection):
                        return
        except BaseException as failure:  # noqa: BLE001 - raised by stop
            self._failure = failure

    def _serve(self, connection: socket.socket) -> bool:
        with connection.makefile("rb") as request:
            lines = list(iter(request.readline, b"\r\n")) if request.peek(1) else []
            if not lines:
                return False
            fields = (x[15:] for x in lines if x.lower().startswith(b"content-length:"))
            body = json.loads(request.read(int(next(fields, b"0"))) or b"null")
            exchange = Exchange(connection, b"".join(lines).decode(), body)
        self.heads.append(exchange.head)
        self.bodies.append(exchange.body)
        self.prompts.append(exchange.prompt)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may leave
            self._answer(exchange)
        return True


@contextmanager
def raw_site(answer: Answer) -> Iterator[RawSite]:
    """Serve a site on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = RawSite(listener, answer)
        site.start()
        try:
            yield site
        finally:
            site.stop()


def in_turn(answers: Iterator[Answer]) -> Answer:
    """Return the behaviour of a site whose n-th request gets the n-th behaviour."""

    def answer(exchange: Exchange) -> None:
        next(answers)(exchange)

    return answer


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment, without variables that affect a command."""
    unwanted = ("GPROCHAT_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "COVERAGE_")
    files = {"GPROCHAT_CONFIG": os.devnull, "GPROCHAT_DATA": os.environ["GPROCHAT_DATA"]}
    variables = {"PYTHONPATH": PACKAGE_PATH, **files, **variables}
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(unwanted)}
    return kept | variables


@contextmanager
def running(
    *arguments: str,
    prefix: tuple[str, ...] = (),
    setup: str = "pass",
    env: dict[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in its own process, which is killed at the end of the block or after `BOUND`.

    :param prefix: A command that starts it.
    :param setup: Python code to run first.
    """
    code = f"{INTERRUPTIBLE}; {setup}\nfrom gprochat_anyio.cli import main; main()"
    command = [*prefix, sys.executable, "-W", "error", "-c", code, *arguments]
    with process_of(
        command, env=env or environment(), stdin=stdin, stdout=stdout, stderr=stderr
    ) as process:
        yield process


@contextmanager
def process_of(command: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, which is killed at the end of the block or after `BOUND`."""
    # unbuffered: `communicate` does not see data that `readline` has buffered
    with subprocess.Popen[bytes](command, bufsize=0, **settings) as process:
        guard = threading.Timer(BOUND, process.kill)
        guard.start()
        try:
            yield process
        finally:
            guard.cancel()
            process.kill()
