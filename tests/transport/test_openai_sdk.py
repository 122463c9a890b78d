"""OpenAI's SDK over `AnyIOTransport`, which serves it on asyncio and on Trio."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from support.http_libraries import LIBRARIES
from support.model_servers import openai as chunk_of
from support.model_servers import stream
from support.reactors import running_reactor
from support.servers import Request, open_sockets, repeating, serving

from gprochat_anyio.transport import AnyIOTransport

openai = pytest.importorskip("openai")


def library_of_the_sdk() -> Any:
    """Return the SDK's HTTP library: httpx, or httpx2 from version 3 on."""
    for library in LIBRARIES:
        if issubclass(openai.DefaultAsyncHttpxClient, library.AsyncClient):
            return library
    raise AssertionError("the SDK uses another HTTP library")


def transport_for(library: Any) -> Any:
    if issubclass(AnyIOTransport, library.AsyncBaseTransport):
        return AnyIOTransport()
    from gprochat_anyio.transport import httpx2  # noqa: PLC0415 - may not be installed

    return httpx2.AnyIOTransport()


# On Trio, the SDK and its HTTP library abandon their own generators.
@pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2?)\\.:ResourceWarning")
async def test_it_streams() -> None:
    requests: list[Request] = []
    answer = stream(chunk_of("Hel"), chunk_of("lo"), chunk_of(None, "stop"), "[DONE]")
    library = library_of_the_sdk()
    with anyio.fail_after(10):
        async with serving(repeating(answer, seen=requests)) as server:
            async with library.AsyncClient(transport=transport_for(library)) as http:
                client = openai.AsyncOpenAI(
                    api_key="key", base_url=f"{server.url}/v1", http_client=http, max_retries=0
                )
                for _ in range(2):
                    reply = await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
                    )
                    texts = [chunk.choices[0].delta.content async for chunk in reply]
                    assert texts == ["Hel", "lo", None]
                assert server.accepted == 1
            assert running_reactor() is None
            assert open_sockets(server.port) == 0
    assert [request.place for request in requests] == ["/v1/chat/completions"] * 2
    assert requests[0].headers["authorization"] == "Bearer key"
