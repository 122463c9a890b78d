"""The body of a response, without httpx's own iterators: those stay unclosed if one is left."""

from __future__ import annotations

import codecs
from typing import Final, Self, cast

from gprochat_anyio.transport._http_library import httpx

EVENT_LIMIT: Final = 16 * 1024 * 1024
"""Characters without the end of a line, after which the server is given up."""

_ERROR_LIMIT: Final = 64 * 1024


class DecodedBody:
    """The body of a response as text, for `EventSource`; UTF-8, whatever its head says."""

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self._pieces = cast("httpx.AsyncByteStream", response.stream).__aiter__()
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._line = 0

    def aiter_text(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            text = self._decode(await self._pieces.__anext__())
            end = max(text.rfind("\n"), text.rfind("\r"))
            self._line = len(text) - end if end >= 0 else self._line + len(text)
            if self._line > EVENT_LIMIT:
                raise ValueError("a line of it does not end")
            if text:
                return text


async def read_some(response: httpx.Response) -> bytes:
    """The body of an error, as far as it comes."""
    body = b""
    try:
        async for piece in cast("httpx.AsyncByteStream", response.stream):
            body += piece
            if len(body) >= _ERROR_LIMIT:
                break
    except httpx.TransportError:
        pass
    return body
