"""One request and its response, between a connection and an ASGI application."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

import h11
from anyio import CancelScope, Event
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message, Scope

from ._http1 import Fields

MAX_UNREAD_BODY: Final = 64 * 1024
"""Size of the unread body at which the server stops receiving, in bytes."""

ResponseHead: TypeAlias = tuple[int, Fields]
"""A response's status and header fields."""

_log = logging.getLogger("gprochat_anyio.site")


class ResponseWriter(Protocol):
    """The connection of a request, as the request sees it."""

    def ask_for_body(self) -> None:
        """Send 100 Continue if the client waits for it."""
        ...

    def body_read(self) -> None:
        """Resume receiving the body."""
        ...

    def encode(self, head: ResponseHead | None, body: bytes, *, last: bool) -> bytes:
        """Return the bytes of a part of the response.

        :param head: The response's head, with the first part. `None` with the others.
        :param last: True if the part ends the response.

        :raises h11.LocalProtocolError: If the response is invalid.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send a part of the response. Wait until the client reads."""
        ...

    def response_sent(self) -> None:
        """Continue with the next request, or close the connection if it is not persistent."""
        ...

    def cycle_ended(self, cycle: AsgiCycle) -> None:
        """Close the connection if the response is incomplete."""
        ...


class AsgiCycle:
    """One request and its response. The application is cancelled when the client disconnects.

    :param scope: The request's ASGI scope.
    """

    def __init__(self, scope: Scope, writer: ResponseWriter) -> None:
        self.started = False
        """True once a part of the response has been sent."""
        self.complete = False
        """True once the whole response has been passed to the connection."""
        self.received = False
        """True once the whole body has been received."""
        self._scope = scope
        self._writer = writer
        self._running: CancelScope | None = None  # AnyIO cannot create it in every callback
        self._abandoned = False
        self._body = bytearray()  # received, but not yet read by the application
        self._body_read = False  # by the application, to its end
        self._head: ResponseHead | None = None
        self._changed: Event | None = None

    async def run(self, app: ASGIApp) -> None:
        """Call the application. Respond with status 500 if it does not respond."""
        try:
            if not self._abandoned:
                with CancelScope() as self._running:
                    await self._call(app)
        except Exception as error:  # noqa: BLE001 - raised beside a cancellation
            _log.error("a request failed: %s", type(error).__qualname__)
        finally:
            self._writer.cycle_ended(self)

    def feed(self, data: bytes | bytearray) -> None:
        """Append a part of the body."""
        self._body += data
        self._notify()

    def end_body(self) -> None:
        """Note that the whole body has been received."""
        self.received = True
        self._notify()

    @property
    def is_full(self) -> bool:
        """True while the server should receive no more of the body."""
        return len(self._body) >= MAX_UNREAD_BODY

    def abandon(self) -> None:
        """Cancel the application, unless its response is complete: the client has disconnected."""
        self._abandoned = True
        self._notify()
        if not self.complete and self._running is not None:
            self._running.cancel()

    async def _receive(self) -> Message:
        if not (self._body or self.received or self._abandoned):
            self._writer.ask_for_body()
        while True:
            if self.complete or self._abandoned:
                return {"type": "http.disconnect"}
            if self._body or (self.received and not self._body_read):
                return self._take_body()
            if self._changed is None:
                self._changed = Event()
            await self._changed.wait()

    def _take_body(self) -> Message:
        body, self._body = bytes(self._body), bytearray()
        self._body_read = self.received
        self._writer.body_read()
        return {"type": "http.request", "body": body, "more_body": not self.received}

    async def _send(self, message: Message) -> None:
        if self._abandoned:
            raise OSError("the client has disconnected")
        if self.complete:
            raise RuntimeError("the response is already complete")
        if message["type"] == "http.response.start":
            if self._head is not None:
                raise RuntimeError("the response has already begun")
            self._head = (message["status"], message.get("headers", ()))
            return  # the head is sent with the first part of the body
        if self._head is None:
            raise RuntimeError("the response has not begun")
        await self._send_part(message.get("body", b""), last=not message.get("more_body", False))

    async def _send_part(self, body: bytes, *, last: bool) -> None:
        if self._scope["method"] == "HEAD":
            body = b""
        data = self._writer.encode(None if self.started else self._head, body, last=last)
        self.started = True
        self.complete = last  # before sending: the client may disconnect at the end
        await self._writer.send(data)
        if last:
            self._notify()
            self._writer.response_sent()
        else:
            await checkpoint()  # sending may not have waited

    async def _call(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - an application may raise anything
            if not self._abandoned:
                # Its text and traceback may quote the request.
                _log.error("a request failed: %s", type(error).__qualname__)
        if not (self.started or self._abandoned):
            text = b"Internal Server Error"
            fields = ((b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text)))
            self._head = (500, fields)
            with suppress(OSError, h11.LocalProtocolError):
                await self._send_part(text, last=True)

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
