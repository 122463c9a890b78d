"""The client's way to its site by a transport of httpx's, which an application brings."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import AsyncGeneratorType, ModuleType
from typing import Any

import anyio

from gprochat_anyio.transport._failures import (
    ConnectFailure,
    ConnectionLost,
    TimedOut,
    TransportFailure,
)
from gprochat_anyio.transport._http_library import httpx, library_of
from gprochat_anyio.transport._reactor import Reactor, current_reactor
from gprochat_anyio.transport._wiring import check_allowed

from .response import IncomingResponse

_CLOSING_SECONDS = 1.0


class ForeignSender:
    """Sends the client's requests by a transport of the caller's.

    :param url: the site's address
    :param headers: of every request
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], transport: httpx.AsyncBaseTransport
    ) -> None:
        self._url = url
        self._headers = headers
        self._transport = transport
        self._library = library_of(transport)

    async def send(
        self,
        path: str,
        encode: Callable[[], bytes],
        response: IncomingResponse,
        *,
        fresh: bool,  # noqa: ARG002 - connections are the transport's business
    ) -> None:
        """Start a background task that sends a request and feeds its response.

        :param encode: makes the body
        """
        exchange = ForeignExchange(self._library, self._transport, response)
        request = self._library.Request(
            "POST",
            self._url + path,
            headers=self._headers,
            content=encode(),
            extensions={"trace": exchange.on_trace},
        )
        if isinstance(self._transport, self._library.AsyncHTTPTransport):
            check_allowed(request.url.host)
        exchange.start(request)

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


class _ForeignHead:
    def __init__(self, response: httpx.Response) -> None:
        self.status: int = response.status_code
        self.headers = [(n.lower(), v) for n, v in response.headers.raw]
        http1 = response.extensions.get("http_version", b"").startswith(b"HTTP/1")
        framed = not http1 or bool({"transfer-encoding", "content-length"} & set(response.headers))
        self.framing = "length" if framed else "close"


class ForeignExchange:
    """One request and its response, in a background task, because a transport has to be awaited.

    The task runs in the caller's context, as the transport would.
    """

    proxy = None
    """None: whichever proxy there is, the transport knows it."""

    def __init__(
        self, library: ModuleType, transport: httpx.AsyncBaseTransport, response: IncomingResponse
    ) -> None:
        self.paused = False
        self._library = library
        self._transport = transport
        self._response = response
        self._reactor: Reactor = current_reactor()
        self._resumed = self._reactor.signal()
        self._scope = anyio.CancelScope()
        self._closed = self._connecting = False
        self._ended = anyio.Event()
        self._request: Any = None

    def start(self, request: httpx.Request) -> None:
        """Start the task."""
        self._request = request
        self._reactor.join()
        self._response.begin(self, self._reactor)
        self._reactor.spawn(self._run, "gprochat_anyio exchange", contextvars.copy_context())

    async def on_trace(self, event: str, _: object) -> None:
        """Take note of the stages that httpcore tells of."""
        if self._closed:
            return
        if event.endswith("connect_tcp.started"):
            self._connecting = True
            self._response.enter("connect")
        elif event.endswith("send_request_headers.started"):
            since = self._response.deadlines.since
            self._response.enter("first_chunk")
            took = self._response.sent_at - since
            self._response.connected(took if self._connecting else None)

    def look(self) -> None:
        """Do nothing: what has arrived is with the response already."""

    def pause(self) -> None:
        """Ask the transport for nothing more."""
        self.paused = True

    def resume(self) -> None:
        """Go on."""
        self.paused = False
        self._resumed.set()

    def close(self) -> None:
        """Cancel the task. It still closes the transport's response."""
        self._closed = True
        self._scope.cancel()

    async def wait_closed(self) -> None:
        """Wait until the task has ended, or a second is over."""
        with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
            await self._ended.wait()

    async def _run(self) -> None:
        """Run the exchange, in a scope: a native cancellation would break httpcore's pool."""
        try:
            with self._scope:
                try:
                    await self._exchange()
                except _foreign_errors(self._library) as error:
                    failure = _failure(self._library, error, answered=self._response.headed)
                    self._feed(self._response.on_failure, failure)
        except anyio.get_cancelled_exc_class():  # the event loop ends, or the transport says so
            self._feed(
                self._response.on_failure, _lost("cancelled", answered=self._response.headed)
            )
            raise
        except BaseException as error:  # noqa: BLE001 - the application's own, raised where it waits
            self._feed(self._response.on_failure, error)
        finally:
            self._ended.set()
            self._reactor.leave()

    async def _exchange(self) -> None:
        request, self._request = self._request, None
        response = await self._transport.handle_async_request(request)
        del request
        body: Any = response.stream.__aiter__()  # type: ignore[union-attr]
        try:
            self._feed(self._response.on_head, _ForeignHead(response))
            while not self._closed:
                if self.paused:
                    await self._resumed.wait()
                elif (data := await anext(body, None)) is None:
                    self._feed(self._response.on_end)
                elif data:
                    self._feed(self._response.on_body, data)
        finally:
            with (
                anyio.CancelScope(shield=True, deadline=anyio.current_time() + _CLOSING_SECONDS),
                suppress(*_foreign_errors(self._library)),
            ):
                if isinstance(body, AsyncGeneratorType):
                    await body.aclose()
                await response.aclose()

    def _feed(self, take: Callable[..., None], *args: Any) -> None:
        if not self._closed:
            self._reactor.now = self._reactor.clock()
            take(*args)


def _foreign_errors(library: ModuleType) -> tuple[type[Exception], ...]:
    return (
        library.HTTPError,
        library.StreamError,
        library.InvalidURL,
        OSError,
        anyio.BrokenResourceError,
        anyio.ClosedResourceError,
        anyio.EndOfStream,
    )


def _failure(library: ModuleType, error: Exception, *, answered: bool) -> TransportFailure:
    reason = f"{type(error).__name__}: {error}".removesuffix(": ")
    if not answered:
        if isinstance(error, library.TimeoutException):
            return TimedOut(reason, connecting=isinstance(error, library.ConnectTimeout))
        if isinstance(
            error, library.ConnectError | library.ProxyError | library.UnsupportedProtocol
        ):
            return ConnectFailure(f"could not connect to the server: {reason}")
    return _lost(reason, answered=answered)


def _lost(reason: str, *, answered: bool) -> ConnectionLost:
    message = f"the connection broke: {reason}"
    return ConnectionLost(message, answered=answered, reused=False, reset=True)
