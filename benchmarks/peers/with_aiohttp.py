"""aiohttp as the original provider uses it: `content.iter_any()` with incremental decoding.

Over events, it is the loop that a careful user writes: the code splits the lines, and calls
`json.loads` for each event. In `AiohttpLines`, aiohttp splits the lines, which is shorter to write.
"""

from __future__ import annotations

import codecs
import json

import aiohttp
import wire

from ._peer import Peer, Take

_DATA, _DONE = b"data: ", b"data: [DONE]"


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


class AiohttpOverEvents(Peer):
    async def open(self, url: str, at_once: int) -> None:
        self._url = url + "/v1/chat/completions"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once))

    async def close(self) -> None:
        await self._session.close()

    async def reply(self, prompt: str, take: Take) -> None:
        request = {
            "model": "bench",
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with self._session.post(self._url, json=request) as response:
            response.raise_for_status()
            await self._read(response.content, take)

    async def _read(self, content: aiohttp.StreamReader, take: Take) -> None:
        rest = b""
        async for data in content.iter_any():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                _take_line(line, take)


class AiohttpLines(AiohttpOverEvents):
    async def _read(self, content: aiohttp.StreamReader, take: Take) -> None:
        async for line in content:
            _take_line(line, take)


def _take_line(line: bytes, take: Take) -> None:
    if line.startswith(_DATA) and not line.startswith(_DONE):
        choices = json.loads(line[len(_DATA) :])["choices"]
        if choices and (text := choices[0]["delta"].get("content")):
            take(text)
