"""Recording exchanges in files: their ends, connections, and what cannot be recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint
from support.loops import virtual
from support.recorded_files import body_of, recorded
from support.retries import ONCE
from transport.receivers import Listening

from gprochat_anyio import (
    Client,
    GPROChatError,
    ReplyInterruptedError,
    RequestTimeoutError,
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
    live_site,
    record,
    replay,
    scripted_site,
)
from gprochat_anyio.transport._connection import Connection
from gprochat_anyio.transport._http_library import httpx


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


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    async with scripted_site("Hello") as site, site.client() as client:
        with pytest.raises(OSError, match=r"001\.json"):
            async with record(client, folder):
                folder.rmdir()
                assert (await client.ask("Hi")).text == "Hello"


async def test_a_model_in_this_process_cannot_be_recorded(tmp_path: Path) -> None:
    async def model(turns: object) -> AsyncIterator[str]:
        yield "a"

    async with Client.of(model) as client:
        with pytest.raises(ValueError, match="a model in this process"):
            async with record(client, tmp_path):
                pytest.fail("nothing would be recorded")
