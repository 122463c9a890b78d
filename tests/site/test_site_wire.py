"""The site's responses, compared byte by byte with recorded exchanges."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.site_wire import ask, connected, limit, serving, signed

from gprochat_anyio._wire.gprochat import AUTH_PATH, FAILURE_MARKER, encode_auth, encode_generate
from gprochat_anyio._wire.messages import history
from gprochat_anyio.site import Model, ModelError, Turn, create_app

TRANSCRIPTS = sorted((Path(__file__).parents[1] / "transcripts").glob("*.json"))


def recorded(path: Path) -> tuple[dict[str, Any], int, str | None, list[bytes]]:
    """Return a transcript, and its response's status, content type and chunks."""
    transcript = json.loads(path.read_bytes())
    wire = b"".join(bytes.fromhex(read["hex"]) for read in transcript["response"])
    head, _, body = wire.partition(b"\r\n\r\n")
    kind = re.search(rb"(?im)^content-type: (.*?)\r?$", head)
    chunks = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        chunks.append(body[:length])
        body = body[length + 2 :]
    return transcript, int(head.split()[1]), kind and kind[1].decode(), chunks


def model_of(status: int, chunks: list[bytes]) -> Model:
    """Return a model that behaves like that of the recorded site."""

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        if status == 500:
            raise ModelError(json.loads(chunks[0])["error"]["message"])
        for chunk in chunks:
            if chunk == FAILURE_MARKER:
                yield ""  # the recorded site sends its head before the failure
                raise OSError("the model's connection broke")
            yield chunk.decode()

    return model


def test_all_transcripts_were_found() -> None:
    assert len(TRANSCRIPTS) == 16


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_responses_equal_the_recorded_ones(path: Path) -> None:
    transcript, status, kind, chunks = recorded(path)
    passwords = ["another", "hunter2"]
    options = {"secret_key": transcript["secret_key"], "passwords": passwords}
    async with serving(model_of(status, chunks), **options) as port:
        seen = await ask(port, json.dumps(transcript["request"]).encode())
    assert (seen.status, seen.headers.get("content-type"), seen.chunks) == (status, kind, chunks)
    assert seen.complete is (
        FAILURE_MARKER not in chunks
    )  # the recorded site ends its response normally


async def test_the_head_of_a_reply() -> None:
    async with serving() as port:
        seen = await ask(port, signed())
    seen.headers.pop("date")
    assert seen.status == 200
    assert seen.headers == {
        "content-type": "text/plain; charset=utf-8",
        "connection": "keep-alive",
        "keep-alive": "timeout=5",
        "transfer-encoding": "chunked",
    }


async def test_each_text_is_sent_immediately_as_one_chunk() -> None:
    go_on = anyio.Event()

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield "Привет"
        await go_on.wait()
        yield ""
        yield ", 😀"

    async with serving(model) as port, connected(port) as wire:
        await wire.send(signed())
        assert (await wire.read_head()).status == 200
        assert (await wire.read_chunk()).decode() == "Привет"
        go_on.set()
        assert (await wire.read_chunk()).decode() == ", 😀"
        assert await wire.read_chunk() == b""


async def test_an_empty_text_opens_the_reply() -> None:
    go_on = anyio.Event()

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield ""
        await go_on.wait()
        raise ModelError("too late for an error answer")

    async with serving(model) as port, connected(port) as wire:
        await wire.send(signed())
        assert (await wire.read_head()).status == 200
        go_on.set()
        assert await wire.read_chunk() == FAILURE_MARKER
        assert await wire.read_to_close() == b""


async def test_one_connection_carries_any_number_of_exchanges() -> None:
    async with serving() as port, connected(port) as wire:
        for request, status in [
            (signed("one"), 200),
            (signed(sign="wrong"), 401),
            (b"{", 500),
            (b"[]", 400),
            (signed("two"), 200),
        ]:
            await wire.send(request)
            assert (await wire.read()).status == status


async def test_the_history_reaches_the_model() -> None:
    heard: list[tuple[Turn, ...]] = []

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        heard.append(turns)
        yield "ok"

    conversation = history(
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
    )
    body = encode_generate(conversation, secret_key="ключ", password="p")
    async with serving(model, secret_key="ключ", passwords=["p"]) as port:
        assert (await ask(port, body)).body == b"ok"
    assert heard == [(Turn("user", "a"), Turn("model", "b"), Turn("user", "c"))]


@pytest.mark.parametrize(
    ("passwords", "given", "answer"),
    [
        ([], encode_auth(None), b'{"code":0}'),
        ([], encode_auth("any"), b'{"code":0}'),
        (["a", "b"], encode_auth("b"), b'{"code":0}'),
        (["a", "b"], encode_auth("c"), b'{"code":-1}'),
        (["a"], encode_auth(None), b'{"code":-1}'),
        (["a"], b"[]", b'{"code":-1}'),
    ],
)
async def test_the_password_check(passwords: list[str], given: bytes, answer: bytes) -> None:
    async with serving(passwords=passwords) as port:
        seen = await ask(port, given, path=AUTH_PATH)
    assert (seen.status, seen.headers["content-type"]) == (200, "text/plain;charset=UTF-8")
    assert seen.chunks == [answer]


async def test_a_password_check_that_is_not_json() -> None:
    async with serving() as port:
        seen = await ask(port, b"{", path=AUTH_PATH)
    assert (seen.status, seen.chunks) == (500, [])
    assert "content-type" not in seen.headers


async def test_other_paths_and_methods() -> None:
    async with serving() as port:
        assert (await ask(port, b"", path="/other")).status == 404
        assert (await ask(port, b"", method="GET")).status == 405


@pytest.mark.parametrize("path", ["/api/generate", "/nowhere"])
async def test_a_body_that_is_too_large(path: str) -> None:
    limit = len(signed())
    async with serving(create_app(body_limit=limit)) as port, connected(port) as wire:
        await wire.send(signed())
        assert (await wire.read()).status == 200
        # The body has been read, so the connection can be reused.
        await wire.send(b" " * 5_000_000, path=path)
        seen = await wire.read()
        assert (seen.status, seen.body) == (
            413,
            b'{"error":{"message":"The request is too large."}}',
        )
        await wire.send(signed())
        assert (await wire.read()).status == 200


async def test_bytes_that_are_not_http() -> None:
    async with serving() as port:
        async with connected(port) as wire:
            await wire.stream.send(b"\x16\x03\x01\r\n\r\n")
            assert (await wire.read_to_close()).startswith(b"HTTP/1.1 400 ")
        assert (await ask(port, signed())).status == 200


async def test_a_client_without_keep_alive() -> None:
    async with serving() as port, connected(port) as wire:
        body = signed()
        head = "POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        await wire.stream.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        seen = await wire.read()
        assert seen.headers["connection"] == "close"
        assert await wire.read_to_close() == b""


async def test_many_replies_at_once() -> None:
    everyone = anyio.Event()
    waiting = 0

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        nonlocal waiting
        yield turns[-1].text
        waiting += 1
        if waiting == 50:
            everyone.set()
        await everyone.wait()
        yield "!"

    async def client(port: int, name: str) -> None:
        seen = await ask(port, signed(name))
        assert seen.chunks == [name.encode(), b"!"]

    async with serving(model) as port, anyio.create_task_group() as tg:
        for number in range(50):
            tg.start_soon(client, port, f"client {number}")


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, idle_seconds=0.05)
    async with serving() as port, connected(port) as wire:
        await wire.send(b"[]")
        assert (await wire.read()).status == 400
        assert await wire.read_to_close() == b""
