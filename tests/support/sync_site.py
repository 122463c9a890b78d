"""A site for sync clients, with a thread for each connection."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from .raw_site import BOUND, END, HEAD, Exchange, RawSite, failing, replying


class Serving:
    """State of a scripted site: permission to send more text, and connections that clients left."""

    def __init__(self) -> None:
        self.more = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.left = threading.Semaphore(0)

    def endless(self, exchange: Exchange) -> None:
        """Send one text, without an end."""
        exchange.send(HEAD)
        exchange.text("one ")
        self.asked.release()
        exchange.until_left()
        self.left.release()

    def silent(self, exchange: Exchange) -> None:
        self.asked.release()
        exchange.until_left()
        self.left.release()

    def by_prompt(self, exchange: Exchange) -> None:
        if exchange.prompt in ("endless", "silent"):
            getattr(self, exchange.prompt)(exchange)
        elif exchange.prompt == "cut":
            exchange.send(HEAD)
            exchange.text("one ")
        elif exchange.prompt == "refused":
            failing(400, "no")(exchange)
        elif exchange.prompt == "two":
            exchange.send(HEAD)
            exchange.text("one ")
            self.asked.release()
            assert self.more.acquire(timeout=BOUND)
            exchange.text("two")
            exchange.send(END)
        else:
            replying(exchange.prompt.upper())(exchange)

    def was_left(self) -> bool:
        return self.left.acquire(timeout=BOUND)


class Site(RawSite):
    """A site that serves each connection in its own thread."""

    _stopping = False

    def stop(self) -> None:
        self._stopping = True
        super().stop()

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(32) as pool:
                serving = []
                while True:
                    connection, _ = self._listener.accept()
                    if self._stopping:
                        connection.close()
                        break
                    connection.settimeout(BOUND)
                    serving.append(pool.submit(self._one, connection))
            for future in serving:
                future.result()
        except BaseException as failure:  # noqa: BLE001 - raised by stop
            self._failure = failure

    def _one(self, connection: socket.socket) -> None:
        with connection:
            self._serve(connection)
