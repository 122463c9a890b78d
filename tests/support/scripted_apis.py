"""Clients of a scripted site and raw requests, in each API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from gprochat_anyio import Client
from gprochat_anyio.testing import ScriptedSite
from gprochat_anyio.testing._steps import LAST_CHUNK

from .retries import ONCE

PATHS = {
    "gprochat": "/api/generate",
    "openai": "/v1/chat/completions",
    "gemini": "/v1beta/models/gemini-flash-latest:streamGenerateContent",
}
every_api = pytest.mark.parametrize("api", PATHS)
event_apis = pytest.mark.parametrize("api", ["openai", "gemini"])


def client_of(site: ScriptedSite, api: str, **settings: Any) -> Client:
    makers: dict[str, Callable[..., Client]] = {
        "gprochat": site.client,
        "openai": site.openai_client,
        "gemini": site.gemini_client,
    }
    return makers[api](**{"retry": ONCE} | settings)


async def raw_reply(
    site: ScriptedSite, api: str, body: bytes, *headers: str
) -> tuple[bytes, list[bytes]]:
    """Send a request. Return the response head, and the HTTP chunks or the body."""
    connection = site.connect()
    fields = "".join(f"{header}\r\n" for header in headers)
    head = f"POST {PATHS[api]} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    await connection.send(head.encode() + body)
    data = b""
    with anyio.fail_after(5):
        while site.requests[-1].outcome == "running" or not data:
            data += await connection.receive()
    connection.close()
    told, _, rest = data.partition(b"\r\n\r\n")
    if b"chunked" not in told:
        return told, [rest]
    chunks = []
    while rest != LAST_CHUNK:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return told, chunks


def events_in(chunks: list[bytes]) -> list[Any]:
    """Return the JSON of events, each of which is one chunk."""
    datas = [chunk.removeprefix(b"data: ").removesuffix(b"\n\n") for chunk in chunks]
    return [data if data == b"[DONE]" else json.loads(data) for data in datas]


OPENAI = {"model": "m", "stream": True}
USER = {"role": "user", "content": "a"}
PARTS = {"parts": [{"text": "a"}]}
