"""The site's application on another ASGI server."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import httpx
import pytest
from support.processes import running

from gprochat_anyio import Client, ReplyInterruptedError

pytestmark = pytest.mark.slow

APPLICATION = """
from gprochat_anyio.site import create_app

async def model(turns):
    yield "You said: "
    if turns[-1].text == "fail":
        raise OSError
    yield turns[-1].text

app = create_app(model, secret_key="a key", passwords=["word"])
"""


@pytest.fixture(scope="module", params=["h11", "httptools"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("uvicorn")
    (folder / "application.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "uvicorn", "application:app", "--fd", "3"]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        with running([*command, "--http", request.param, "--no-access-log"], folder, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_replies_and_failures(url: str) -> None:
    async with Client(url, secret_key="a key", password="word") as client:
        assert (await client.ask("hello")).text == "You said: hello"
        with pytest.raises(ReplyInterruptedError) as failed:
            await client.ask("fail")
        assert failed.value.partial_text == "You said: "
        assert (await client.ask("again")).text == "You said: again"
    async with Client.openai(f"{url}/v1", model="any", api_key="word") as client:
        assert (await client.ask("hello")).text == "You said: hello"


async def test_the_page(url: str) -> None:
    async with httpx.AsyncClient() as client:
        page = await client.get(url)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "gprochat_page" in page.cookies
