"""aiohttp as the original provider used it: `content.iter_any()`, decoded as it comes."""

from __future__ import annotations

import codecs

import aiohttp
import wire

from ._peer import Peer, Take


class Aiohttp(Peer):
    async def open(self, url: str, at_once: int) -> None:
        self._url = url + wire.PATH
        self._session = aiohttp.ClientSession(
            headers=wire.HEADERS, connector=aiohttp.TCPConnector(limit=at_once)
        )

    async def close(self) -> None:
        await self._session.close()

    async def reply(self, prompt: str, take: Take) -> None:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        async with self._session.post(self._url, data=wire.body(prompt)) as response:
            response.raise_for_status()
            async for data in response.content.iter_any():
                take(decode(data))
