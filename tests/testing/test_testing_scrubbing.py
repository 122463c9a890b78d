"""Secrets that are blotted out of a recording: passwords and keys, whatever words they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.recorded_files import body_of, recorded
from support.retries import ONCE

from gprochat_anyio import GPROChatError, SiteError
from gprochat_anyio.testing import Raw, Refuse, Request, Say, Script, record, replay, scripted_site
from gprochat_anyio.testing._scrubbing import scrub_json, scrub_response, scrub_texts


async def test_no_secret_is_in_a_file(tmp_path: Path) -> None:
    def echo(request: Request) -> list[Raw]:
        body = f"said {request.prompt}"
        head = (
            "HTTP/1.1 200 OK\r\nSet-Cookie: session=canary-cookie; Secure\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return [Raw(head[:40].encode()), Raw(head[40:].encode()), Raw(body.encode())]

    secrets: dict[str, Any] = {"secret_key": "canary-key", "password": 'canary-"pass'}
    async with scripted_site(echo, **secrets) as site:
        async with (
            site.client(headers={"Authorization": "canary-token"}) as client,
            record(client, tmp_path),
        ):
            assert await client.check_password()
            await client.ask('my password is canary-"pass')
    (transcript,) = recorded(tmp_path)
    assert "canary" not in (tmp_path / "001.json").read_text("utf-8")
    assert b"canary" not in body_of(transcript)
    assert body_of(transcript).endswith(b"\r\n\r\nsaid my password is ************")
    assert transcript.request["pass"] == "a password"
    assert transcript.request["messages"][0]["parts"][0]["text"] == "my password is ************"
    async with replay(tmp_path, match=True, password="a password") as site:
        async with site.client() as client:
            assert (await client.ask("my password is ************")).text.startswith("said")
        assert site.requests[0].signature_ok


@pytest.mark.parametrize(
    "password", ["user", "parts", "text", "role", "200", "HTTP", "chunked", "5", "1", 'a"ö']
)
async def test_a_password_may_be_any_word(tmp_path: Path, password: str) -> None:
    said = f"it is {password}, I said"
    escaped = json.dumps({"error": {"message": said}})

    def answer(request: Request) -> list[Say] | list[Raw]:
        if request.number:
            fields = f"X-Echo: {password}\r\nContent-Length: {len(escaped)}"
            return [Raw(f"HTTP/1.1 400 X\r\n{fields}\r\n\r\n{escaped}".encode())]
        return [Say(bytes([byte])) for byte in said.encode()]

    async with scripted_site(answer, password=password) as site, site.client() as client:
        async with record(client, tmp_path):
            assert (await client.ask(said)).text == said
            with pytest.raises(SiteError):
                await client.ask(said)
    blot = said.replace(password, "*" * len(password))
    async with replay(tmp_path, match=True) as site, site.client() as client:
        with pytest.raises(SiteError, match=r"it is \*+, I said"):
            await client.ask(blot)
    async with replay(tmp_path / "001.json") as site, site.client() as client:
        reply = (await client.ask(blot)).text
        assert reply == said.replace(password, "*" * len(password.encode()))
    first, second = recorded(tmp_path)
    assert first.request["messages"] == [{"role": "user", "parts": [{"text": blot}]}]
    assert f"X-Echo: {password}".encode() not in body_of(second)


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nsecre\r\n1;x=y\r\nt\r\n0\r\n\r\n",
        b"6\r\nsecret\r\n6\r\nsecr",
        b"6\r\nsecret\r\nnonsense secret\r\n",
        b"secret",
        b"6\r\nsecret",
    ],
)
def test_a_password_in_chunks(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    clean = scrub_response(head + body, "secret")
    assert clean == head + body.replace(b"secret", b"******").replace(b"secre", b"*****").replace(
        b"\r\nt\r\n", b"\r\n*\r\n"
    )
    assert scrub_response(head[:10], "HTTP") == head[:10]
    assert scrub_texts([1, {"a": "secret"}, {"text": 5}], "secret") == [
        1,
        {"a": "secret"},
        {"text": 5},
    ]


@pytest.mark.parametrize("api", ["openai", "gemini"])
async def test_no_key_is_in_a_file(tmp_path: Path, api: str) -> None:
    key = "canary-key-of-an-api"
    pieces = [Say(piece) for piece in ("your key is ", key[:6], key[6:9], key[9:], f", {key}")]
    told = f"it is {key}"
    head = "HTTP/1.1 400 X\r\nContent-Type: application/json\r\nX-Key: {key}\r\nContent-Length: "
    broken = f"{head.format(key=key)}{len(told)}\r\n\r\n{told}"  # invalid JSON
    replies: list[Script] = [pieces, Refuse(401, told), Raw(broken.encode())]
    async with scripted_site(*replies, password=key) as site:
        maker = site.openai_client if api == "openai" else site.gemini_client
        async with maker(retry=ONCE, system=told) as client, record(client, tmp_path):
            assert (await client.ask(told)).text == f"your key is {key}, {key}"
            for _ in range(2):
                with pytest.raises(GPROChatError):
                    await client.ask(told)
    assert len(recorded(tmp_path)) == 3
    blot = "*" * len(key)
    for transcript in recorded(tmp_path):
        assert b"canary" not in body_of(transcript)
        assert "canary" not in json.dumps(transcript.request)
        assert f"it is {blot}" in json.dumps(transcript.request)
        assert transcript.end == "complete"
    async with replay(tmp_path / "001.json", match=True, pieces="bytes") as site:
        maker = site.openai_client if api == "openai" else site.gemini_client
        async with maker(retry=ONCE, system=f"it is {blot}") as client:
            reply = await client.ask(f"it is {blot}")
            assert (reply.text, reply.finish_reason) == (f"your key is {blot}, {blot}", "stop")
            with pytest.raises(SiteError, match="no recording has these messages"):
                await client.ask("something else")


@pytest.mark.parametrize("api", ["openai", "gemini"])
@pytest.mark.parametrize("key", ["stop", "STOP", "text", "content", "user", "data", "0", "{", '"'])
async def test_a_key_may_be_any_word(tmp_path: Path, api: str, key: str) -> None:
    said = f"it is {key}, I said"
    async with scripted_site([Say(byte) for byte in said], password=key) as site:
        maker = site.openai_client if api == "openai" else site.gemini_client
        async with maker() as client, record(client, tmp_path):
            assert (await client.ask(said)).text == said
    blot = said.replace(key, "*" * len(key))
    async with replay(tmp_path, match=True) as site:
        maker = site.openai_client if api == "openai" else site.gemini_client
        async with maker() as client:
            reply = await client.ask(blot)
    escaped = len(json.dumps(key)) - 2
    assert (reply.text, reply.finish_reason) == (said.replace(key, "*" * escaped), "stop")


def test_a_request_without_a_history_is_anonymous_too() -> None:
    words = {"type": "key", "name": ["key", 7], "key": {"role": "key", "status": {"a": "key"}}}
    assert scrub_json(words, "key") == {
        "type": "key",
        "name": ["***", 7],
        "key": {"role": "key", "status": {"a": "***"}},
    }
    assert scrub_json(words, None) == words
