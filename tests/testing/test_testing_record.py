"""Recording exchanges in files, and replaying them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint
from support.loops import VIRTUAL_LOOPS
from transport.receivers import Listening

from gprochat_anyio import (
    AuthenticationError,
    Client,
    GPROChatError,
    ReplyInterruptedError,
    RequestTimeoutError,
    Retry,
    SiteError,
    Timeouts,
)
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Pause,
    Raw,
    Refuse,
    Request,
    Say,
    Script,
    Transcript,
    live_site,
    record,
    replay,
    scripted_site,
)
from gprochat_anyio.testing._scrubbing import scrub_json, scrub_response, scrub_texts
from gprochat_anyio.transport._connection import Connection
from gprochat_anyio.transport._http_library import httpx

ONCE = Retry(attempts=1)
TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
virtual = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)


def recorded(folder: Path) -> list[Transcript]:
    return [Transcript.load(path) for path in sorted(folder.glob("*.json"))]


def body_of(transcript: Transcript) -> bytes:
    return b"".join(read.data for read in transcript.response)


@virtual
@pytest.mark.parametrize("pieces", ["recorded", "whole", "bytes"])
async def test_recordings_are_replayed(tmp_path: Path, pieces: Any) -> None:
    async with scripted_site([Say("é"), Pause(5), Say("lo")], Refuse(429, "slow")) as site:
        async with site.client(retry=ONCE) as client, record(client, tmp_path / "new" / "folder"):
            assert (await client.ask("Hi")).text == "élo"
            with pytest.raises(SiteError):
                await client.ask("Ho")
    first, second = recorded(tmp_path / "new" / "folder")
    assert [(t.name, t.end) for t in (first, second)] == [("001", "complete"), ("002", "complete")]
    assert [read.t for read in first.response] == [0, 5, 5]
    assert first.request["messages"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    async with replay(tmp_path / "new" / "folder", pieces=pieces, timing=True) as site:
        async with site.client(retry=ONCE) as client:
            reply = await client.ask("whatever")
            assert (reply.text, round(reply.timing.total, 6)) == ("élo", 5)
            assert reply.timing.chunks == (1 if pieces == "whole" else 2 if pieces[0] == "r" else 3)
            with pytest.raises(SiteError, match="slow"):
                await client.ask("whatever")


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


async def test_broken_ends(tmp_path: Path) -> None:
    scripts = [[Say("a"), Drop()], [Say("b"), Drop(reset=True)], [Say("c"), Hang()]]
    async with scripted_site(*scripts) as site:
        async with site.client(retry=ONCE) as client, record(client, tmp_path):
            for _ in range(2):
                with pytest.raises(ReplyInterruptedError):
                    await client.ask("Hi")
            async with client.stream("Hi") as chunks:
                await chunks.receive()
    assert [t.end for t in recorded(tmp_path)] == ["closed", "reset", "left"]
    files = [tmp_path / f"{name}.json" for name in ("001", "002", "003")]
    async with replay(*files, pieces="whole") as site:
        async with site.client(retry=ONCE) as client:
            for text in ("a", "b"):
                with pytest.raises(ReplyInterruptedError) as caught:
                    await client.ask("Hi")
                assert caught.value.partial_text == text
            with pytest.raises(RequestTimeoutError):
                await client.ask("Hi", timeouts=Timeouts(idle=0.01))


async def test_invalid_responses_are_recorded(tmp_path: Path) -> None:
    async with scripted_site(Raw(b"nonsense\r\n\r\n")) as site:
        async with site.client(retry=ONCE) as client, record(client, tmp_path):
            with pytest.raises(GPROChatError):
                await client.ask("Hi")
    (transcript,) = recorded(tmp_path)
    assert (body_of(transcript), transcript.end) == (b"nonsense\r\n\r\n", "left")


async def test_real_connections_and_earlier_idle_ones(tmp_path: Path) -> None:
    older = anyio.Path(tmp_path / "007.json")
    await older.write_text("{}")
    with anyio.fail_after(10):
        async with live_site("Hello") as site, site.client() as client:
            await client.ask("kept")
            for _ in range(2):
                async with record(client, tmp_path):
                    await client.ask("x" * 200_000)
                    await client.ask("on the same connection")
                await client.ask("not this")
        await older.unlink()
    assert [t.name for t in recorded(tmp_path)] == ["008", "009", "010", "011"]
    assert {t.end for t in recorded(tmp_path)} == {"complete"}


async def test_exchanges_open_at_the_end_of_the_block(tmp_path: Path) -> None:
    more = anyio.Event()
    async with scripted_site([Say("a"), more.wait, Say("b")]) as site, site.client() as client:
        async with client.stream("Hi") as chunks:
            pass
        recording = record(client, tmp_path)
        await recording.__aenter__()
        async with client.stream("Hi") as chunks:
            await chunks.receive()
            await recording.__aexit__(None, None, None)
            (transcript,) = recorded(tmp_path)
            assert transcript.end == "left"
            more.set()
            assert await chunks.read() == "b"
        await client.ask("on the connection that was recorded")
    assert len(recorded(tmp_path)) == 1


@asynccontextmanager
async def recorded_connection(
    client: Client, folder: Path
) -> AsyncIterator[tuple[Connection, Listening]]:
    endpoint = opener_of(client)
    assert endpoint.pool is not None
    assert endpoint.address is not None
    async with record(client, folder):
        connection = await endpoint.pool.acquire(endpoint.address.target, lambda _: None)
        connection.receiver = listening = Listening()
        try:
            yield connection, listening
        finally:
            endpoint.pool.discard(connection)
        assert connection.receiver is listening


async def test_requests_that_are_not_recorded(tmp_path: Path) -> None:
    async with scripted_site("a") as site, site.client() as client:
        async with recorded_connection(client, tmp_path) as (connection, listening):
            await connection.send(b"POST /api/auth HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            assert str(await listening.next()).count("HTTP/1.1")
            await connection.send(b'POST / HTTP/1.1\r\nContent-Length: 15\r\n\r\n{"messages": 1}')
            assert await listening.next()
    (transcript,) = recorded(tmp_path)
    assert transcript.request == {"messages": 1, "time": None, "pass": None, "sign": ""}


async def test_ends_of_connections_without_a_request(tmp_path: Path) -> None:
    async def hang_up(stream: SocketStream) -> None:
        async with stream:
            pass

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, hang_up)
            async with Client(f"http://127.0.0.1:{port}") as client:
                async with recorded_connection(client, tmp_path) as (_, listening):
                    assert await listening.next() == "lost"
            tasks.cancel_scope.cancel()
    assert not recorded(tmp_path)


async def test_a_recorded_connection_is_a_connection(tmp_path: Path) -> None:
    """The pool's and the exchange's calls reach the wrapped connection."""
    async with live_site([Say("a"), Hang()]) as site, site.client() as client:
        async with recorded_connection(client, tmp_path) as (connection, listening):
            assert connection.fileno() > 0
            assert connection.is_quiet()
            assert not connection.paused
            assert not connection.is_sending
            assert not connection.closed
            connection.pause()
            assert connection.paused
            await connection.send(b"POST /api/auth HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            connection.resume()
            with anyio.fail_after(5):
                while not listening.told:
                    connection.look()
                    await checkpoint()
        assert connection.closed
        assert connection.fileno() == -1


async def test_a_defect_on_a_recorded_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: bytes) -> None:
        raise ZeroDivisionError

    async with live_site("a") as site, site.client() as client:
        async with recorded_connection(client, tmp_path) as (connection, listening):
            monkeypatch.setattr(listening, "feed", broken)
            await connection.send(b"POST /api/auth HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            assert await listening.next() == "broken"
            connection.receiver = listening


async def test_an_idle_recorded_connection_that_the_site_ends(tmp_path: Path) -> None:
    go_on = anyio.Event()

    def script(request: Request) -> list[Any]:
        return [Say("a"), Raw(b"0\r\n\r\n"), go_on.wait, Drop()]

    async with live_site(script) as site, site.client() as client, record(client, tmp_path):
        await client.ask("Hi")
        pool = opener_of(client).pool
        assert pool is not None
        (idle,) = pool.statistics().idle
        assert idle.on_unsolicited is not None
        go_on.set()
        with anyio.fail_after(5):
            while pool.statistics().idle:
                await checkpoint()
        assert idle.closed


async def test_a_foreign_transport_cannot_be_recorded(tmp_path: Path) -> None:
    async with Client(
        "https://site.test", transport=httpx.MockTransport(lambda _: httpx.Response(200))
    ) as client:
        with pytest.raises(ValueError, match="only the library's own transport"):
            async with record(client, tmp_path):
                pytest.fail("nothing would be recorded")


async def test_matching_by_messages() -> None:
    async with replay(TRANSCRIPTS, match=True) as site, site.client(retry=ONCE) as client:
        assert (await client.ask("slow-start 1")).text == "slow-start 1"
        assert (await client.ask("stall 1.5")).text == "before after"
        with pytest.raises(SiteError, match="no recording"):
            await client.ask("something else")


@virtual
async def test_timing_as_recorded() -> None:
    async with replay(TRANSCRIPTS / "reply_stall.json", timing=True) as site:
        async with site.client() as client, client.stream("Hi") as chunks:
            assert chunks.timing.first_chunk == pytest.approx(0.0043)
            await chunks.read()
            assert chunks.timing.total == pytest.approx(1.5072)


@pytest.mark.parametrize("pieces", ["recorded", "whole", "bytes"])
@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.json")), ids=lambda p: p.stem)
@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS[1:], indirect=True)
async def test_every_transcript(path: Path, pieces: Any) -> None:
    async with replay(path, pieces=pieces) as site, site.client(retry=ONCE) as client:
        if path.stem.startswith("reply_") and path.stem != "reply_empty":
            assert (await client.ask("Hi")).text
        else:
            with pytest.raises(GPROChatError) as caught:
                await client.ask("Hi")
            assert isinstance(caught.value, AuthenticationError) == path.stem.startswith(
                "error_bad"
            )


def test_a_written_transcript_is_read_back(tmp_path: Path) -> None:
    for path in TRANSCRIPTS.glob("*.json"):
        Transcript.load(path).dump(tmp_path / "copy.json")
        assert json.loads((tmp_path / "copy.json").read_bytes()) == json.loads(path.read_bytes())


async def test_an_empty_recording() -> None:
    for end, raises in (("closed", GPROChatError), ("complete", RequestTimeoutError)):
        transcript = {"name": "", "note": "", "secret_key": "", "request": {}, "response": []}
        path = anyio.Path(await anyio.mkdtemp()) / "empty.json"
        await path.write_text(json.dumps(transcript | {"end": end}))
        async with replay(str(path), pieces="whole") as site:
            async with site.client(retry=ONCE, timeouts=Timeouts(first_chunk=0.01)) as client:
                with pytest.raises(raises):
                    await client.ask("Hi")
        await path.unlink()
        await path.parent.rmdir()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"name": 1}', '{"response": 7}', '{"response": [{"t": "x", "hex": ""}]}'],
)
def test_invalid_transcript_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not the transcript"):
        replay(tmp_path)


def test_an_invalid_end(tmp_path: Path) -> None:
    found = json.loads((TRANSCRIPTS / "reply_empty.json").read_bytes())
    (tmp_path / "a.json").write_text(json.dumps(found | {"end": "perhaps"}))
    with pytest.raises(ValueError, match="the end of a transcript"):
        replay(tmp_path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: replay(), "at least"),
        (replay, "contains no transcripts"),
        (lambda path: replay(path, pieces="halves"), "pieces must be"),  # type: ignore[arg-type]
    ],
)
def test_invalid_recordings(make: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        make(tmp_path)
    with pytest.raises(OSError):
        replay(tmp_path / "missing.json")


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


async def test_given_file_names(tmp_path: Path) -> None:
    async with scripted_site(lambda request: request.prompt) as site, site.client() as client:
        async with record(client, tmp_path):
            await client.ask("one")
        (tmp_path / "001.json").rename(tmp_path / "999-hello.json")
        async with record(client, tmp_path):
            await client.ask("two")
    (tmp_path / "notes.json").write_bytes((tmp_path / "999-hello.json").read_bytes())
    async with replay(tmp_path) as site, site.client() as client:
        assert [(await client.ask("x")).text for _ in range(3)] == ["one", "two", "one"]
    assert (tmp_path / "1000.json").exists()


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    async with scripted_site("Hello") as site, site.client() as client:
        with pytest.raises(OSError, match=r"001\.json"):
            async with record(client, folder):
                folder.rmdir()
                assert (await client.ask("Hi")).text == "Hello"


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


async def test_a_model_in_this_process_cannot_be_recorded(tmp_path: Path) -> None:
    async def model(turns: object) -> AsyncIterator[str]:
        yield "a"

    async with Client.of(model) as client:
        with pytest.raises(ValueError, match="a model in this process"):
            async with record(client, tmp_path):
                pytest.fail("nothing would be recorded")


def test_a_request_without_a_history_is_anonymous_too() -> None:
    words = {"type": "key", "name": ["key", 7], "key": {"role": "key", "status": {"a": "key"}}}
    assert scrub_json(words, "key") == {
        "type": "key",
        "name": ["***", 7],
        "key": {"role": "key", "status": {"a": "***"}},
    }
    assert scrub_json(words, None) == words
