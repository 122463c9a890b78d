"""`AnyIOTransport` for httpx2."""

from __future__ import annotations

import httpx2

from ._anyio_transport import HTTPTransport

__all__ = ["AnyIOTransport"]


class AnyIOTransport(HTTPTransport, httpx2.AsyncBaseTransport):
    __doc__ = HTTPTransport.__doc__

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and return its response once the head has arrived.

        :raises httpx2.TransportError: The exception that httpx2 documents, always with a message.
        """
        response: httpx2.Response = await self._handle(httpx2, request)
        return response
