"""Transports of httpx's, which an application brings, as the client's way to its site."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import AsyncGeneratorType, ModuleType

import anyio

from gprochat_anyio.transport._failures import (
    ConnectFailure,
    ConnectionLost,
    TimedOut,
    TransportFailure,
)
from gprochat_anyio.transport._http_library import httpx, library_of
from gprochat_anyio.transport._stages import OnStage
from gprochat_anyio.transport._wiring import check_allowed


class HttpxSender:
    """Sends the client's requests by a foreign transport of httpx's.

    The transport does not tell HTTP chunks apart, so a piece of its stream is taken for one.

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
        body: bytes,
        on_stage: OnStage,
        *,
        fresh: bool,  # noqa: ARG002 - connections are the transport's business
    ) -> HttpxAnswer:
        async def trace(event: str, _: object) -> None:
            if event.endswith("connect_tcp.started"):
                on_stage("connect")
            elif event.endswith("send_request_headers.started"):
                on_stage("send")

        on_stage("send")
        request = self._library.Request(
            "POST",
            self._url + path,
            headers=self._headers,
            content=body,
            extensions={"trace": trace},
        )
        if isinstance(self._transport, self._library.AsyncHTTPTransport):
            check_allowed(request.url.host)
        try:
            response = await self._transport.handle_async_request(request)
        except _foreign_errors(self._library) as error:
            failure = _failure(self._library, error, answered=False)
        else:
            return HttpxAnswer(self._library, response)
        raise failure

    async def aclose(self) -> None:
        await self._transport.aclose()


class HttpxAnswer:
    """The answer of a foreign transport.

    Its stream most likely is a generator, which a cancellation ends for good, and which then looks
    as if the body were complete.
    """

    resumable = False

    def __init__(self, library: ModuleType, response: httpx.Response) -> None:
        self._library = library
        self._response = response
        self._body: AsyncIterator[bytes] = response.stream.__aiter__()  # type: ignore[union-attr]
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.complete = False
        self._cancelled = False
        self._receiving: anyio.CancelScope | None = None
        http1 = response.extensions.get("http_version", b"").startswith(b"HTTP/1")
        self.framed = not http1 or bool(
            {"transfer-encoding", "content-length"} & set(response.headers)
        )

    async def receive(self) -> list[bytes]:
        if self._cancelled:
            raise ConnectionLost(
                "a read was cancelled, which a foreign transport can not take up again",
                answered=True,
                reused=False,
                reset=True,
            )
        failure: Exception = anyio.ClosedResourceError()
        with anyio.CancelScope() as self._receiving:
            try:
                async for piece in self._body:
                    if piece:
                        return [piece, b""]
            except _foreign_errors(self._library) as error:
                failure = error
            except BaseException:
                self._cancelled = True
                raise
            else:
                self.complete = True
                return []
        raise _failure(self._library, failure, answered=True)

    def open_chunk_size(self, received: bytes) -> int | None:  # noqa: ARG002 - the seam's signature
        return None

    async def aclose(self) -> None:
        """Close the response; a foreign transport that does not come to an end is given up."""
        if self._receiving is not None:
            self._receiving.cancel()
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + 1):
            # a task that is in a generator, and is cancelled, closes it on its own way out
            if isinstance(self._body, AsyncGeneratorType) and not self._body.ag_running:
                with suppress(*_foreign_errors(self._library)):
                    await self._body.aclose()
            with suppress(*_foreign_errors(self._library)):
                await self._response.aclose()


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
    if isinstance(error, library.TimeoutException):
        return TimedOut(reason, connecting=isinstance(error, library.ConnectTimeout))
    if isinstance(error, library.ConnectError | library.ProxyError | library.UnsupportedProtocol):
        return ConnectFailure(f"could not connect to the site: {reason}")
    message = f"the connection broke: {reason}"
    return ConnectionLost(message, answered=answered, reused=False, reset=True)
