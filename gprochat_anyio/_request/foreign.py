"""The sender that uses an application's transport of httpx or httpx2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import AsyncGeneratorType, ModuleType
from typing import Any

import anyio

from gprochat_anyio._settings import AsyncTransport
from gprochat_anyio.transport._failures import (
    ConnectFailure,
    ConnectionLost,
    TimedOut,
    TransportFailure,
)
from gprochat_anyio.transport._http_library import httpx, library_of
from gprochat_anyio.transport._wiring import check_allowed

from .address import headers_of_get
from .background_exchange import BackgroundExchange
from .response import IncomingResponse

_CLOSING_SECONDS = 1.0


class ForeignSender:
    """Sender over a transport of the caller.

    :param url: The API's address.
    :param headers: The header fields of every request.
    """

    pool = None
    """Always `None`: the transport manages the connections."""

    def __init__(self, url: str, headers: Mapping[str, str], transport: AsyncTransport) -> None:
        self._url = url
        self._headers = headers
        self._transport = transport
        self._library = library_of(transport)

    async def send(
        self,
        path: str,
        encode: Callable[[], Any],
        response: IncomingResponse,
        *,
        fresh: bool,  # noqa: ARG002 - the transport decides
    ) -> None:
        """Start a background task that sends a request and feeds its response.

        :param encode: Return the body. If it returns `None`, the request is a GET.
        """
        exchange = ForeignExchange(self._library, self._transport, response)
        body = encode()
        request = self._library.Request(
            "POST" if body is not None else "GET",
            self._url + path,
            headers=self._headers if body is not None else headers_of_get(self._headers),
            content=body,
            extensions={"trace": exchange.on_trace},
        )
        if isinstance(self._transport, self._library.AsyncHTTPTransport):
            check_allowed(request.url.host)
        exchange.request = request
        exchange.start()

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


class ForeignExchange(BackgroundExchange):
    """One request and its response, over a transport of the caller."""

    def __init__(
        self, library: ModuleType, transport: AsyncTransport, response: IncomingResponse
    ) -> None:
        super().__init__(response)
        self._library = library
        self._transport = transport
        self._connecting = False
        self.request: Any = None
        """The request, until it has been sent."""

    async def on_trace(self, event: str, _: object) -> None:
        """Follow the stages that httpcore reports."""
        if self.closed:
            return
        if event.endswith("connect_tcp.started"):
            self._connecting = True
            self._response.enter("connect")
        elif event.endswith("send_request_headers.started"):
            since = self._response.deadlines.since
            self._response.enter("first_chunk")
            took = self._response.sent_at - since
            self._response.connected(took if self._connecting else None)

    async def _exchange(self) -> None:
        try:
            await self._send()
        except _foreign_errors(self._library) as error:
            failure = _failure(self._library, error, answered=self._response.headed)
            self._feed(self._response.on_failure, failure)

    def _cancelled(self) -> TransportFailure:
        return _lost("cancelled", answered=self._response.headed)

    async def _send(self) -> None:
        request, self.request = self.request, None
        response = await self._transport.handle_async_request(request)
        del request
        body: Any = response.stream.__aiter__()
        try:
            self._feed(self._response.on_head, _ForeignHead(response))
            while not self.closed:
                await self._until_resumed()
                if (data := await anext(body, None)) is None:
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
    said = str(error)
    if isinstance(
        error, library.ProtocolError
    ):  # it quotes the server's data, which may include keys
        said = said.partition(":")[0]
    reason = f"{type(error).__name__}: {said}".removesuffix(": ")
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
