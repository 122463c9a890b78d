"""`AnyIOTransport` for httpx, or for httpx2 if httpx is not installed."""

from __future__ import annotations

from ._anyio_transport import HTTPTransport
from ._http_library import httpx, library_of


class AnyIOTransport(HTTPTransport, httpx.AsyncBaseTransport):
    __doc__ = HTTPTransport.__doc__

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return its response once the head has arrived.

        :raises httpx.TransportError: The exception that httpx documents, always with a message.
        """
        response: httpx.Response = await self._handle(library_of(request), request)
        return response
