"""httpx and its successor httpx2, with `aiter_text`, or with `aiter_raw` and a decoder."""

from __future__ import annotations

import codecs
from importlib import import_module
from typing import Any

import wire

from ._peer import Peer, Take


class Httpx(Peer):
    package = "httpx"

    async def open(self, url: str, at_once: int) -> None:
        httpx: Any = import_module(self.package)
        self._url = url + wire.PATH
        self._client = httpx.AsyncClient(
            headers=wire.HEADERS,
            timeout=httpx.Timeout(300),
            limits=httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def reply(self, prompt: str, take: Take) -> None:
        async with self._client.stream("POST", self._url, content=wire.body(prompt)) as response:
            response.raise_for_status()
            async for text in response.aiter_text():
                take(text)


class Httpx2(Httpx):
    package = "httpx2"


class HttpxRaw(Httpx):
    async def reply(self, prompt: str, take: Take) -> None:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        async with self._client.stream("POST", self._url, content=wire.body(prompt)) as response:
            response.raise_for_status()
            async for data in response.aiter_raw():
                take(decode(data))
