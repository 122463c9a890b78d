"""ReplyStream: pieces of text, checkpoints, failures, misuse."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import ObjectReceiveStream
from support.blocked import all_tasks_blocked
from support.exceptions import BoomError
from support.prompted import closed
from support.raw_site import HEAD, Exchange, raw_site
from support.response_bytes import REPLY_HEAD
from support.scripted import reply
from support.streams import OPEN_ENDED, client_of

from gprochat_anyio import (
    Client,
    ReplyInterruptedError,
    ReplyStream,
    SiteConnectionError,
    SiteError,
    UnexpectedResponseError,
)
from gprochat_anyio._wire.reply_decoder import TextDecoder
from gprochat_anyio.testing import Drop, Hang, Raw, Refuse, Say, Script, scripted_site


async def test_stream_is_an_object_receive_stream() -> None:
    async with client_of(Raw(reply("one", "two"))) as (client, _):
        async with client.stream("hi") as chunks:
            assert isinstance(chunks, ReplyStream)
            assert isinstance(chunks, ObjectReceiveStream)
            assert await chunks.receive() == "onetwo"  # available text is joined
            with pytest.raises(anyio.EndOfStream):
                await chunks.receive()
            with pytest.raises(anyio.EndOfStream):
                await chunks.receive()
        assert chunks.text == "onetwo"
        assert chunks.timing.chunks == 1
        assert chunks.timing.characters == 6
        assert chunks.timing.total >= chunks.timing.first_chunk >= 0


async def test_pieces_arrive_as_they_are_sent() -> None:
    more = anyio.Event()
    async with client_of([Say("one"), more.wait, Say("two")]) as (client, _):
        async with client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            assert chunks.text == "one"
            more.set()
            assert await chunks.receive() == "two"
            assert [piece async for piece in chunks] == []


async def test_connections_are_returned_and_reused() -> None:
    async with client_of("a") as (client, site):
        for _ in range(3):
            assert (await client.ask("hi")).text == "a"
            async with client.stream("hi") as chunks:
                assert await chunks.read() == "a"
        assert site.connections == 1
        assert (await client.ask("hi")).timing.connect == 0.0


@pytest.mark.parametrize("reset", [False, True])
async def test_a_failure_comes_after_all_text(reset: bool) -> None:
    texts = [f"{n};" for n in range(5)]
    at_once = Raw(REPLY_HEAD + b"".join(Say(text).data for text in texts))
    async with client_of([at_once, Drop(reset=reset)]) as (client, site):
        pieces: list[str] = []
        async with client.stream("hi") as chunks:
            await closed(site)
            with pytest.raises(ReplyInterruptedError, match="ask again") as caught:
                async for piece in chunks:
                    pieces.append(piece)  # noqa: PERF401 - the exception matters
            with pytest.raises(ReplyInterruptedError):
                await chunks.receive()
        if not reset:  # a reset may overtake data sent before it
            assert "".join(pieces) == "".join(texts)
        assert caught.value.partial_text == chunks.text == "".join(pieces)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


async def test_read_collects_the_rest() -> None:
    more = anyio.Event()
    async with client_of([Say("one"), more.wait, Say("two")]) as (client, _):
        async with client.stream("hi") as chunks:
            await chunks.receive()
            more.set()
            assert await chunks.read() == "two"
        assert chunks.text == "onetwo"


async def test_receive_is_a_checkpoint_each_time() -> None:
    async with client_of("a", OPEN_ENDED) as (client, _):
        for way in ("ended", "open", "stopped", "closed"):
            async with client.stream("hi") as chunks:
                if way == "stopped":
                    chunks.stop()
                elif way == "closed":
                    await chunks.aclose()
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await chunks.receive()
                assert scope.cancelled_caught
                if way in ("ended", "open"):
                    assert await chunks.receive()  # no text was lost


async def test_two_receivers() -> None:
    async with client_of(OPEN_ENDED) as (client, _):
        async with client.stream("hi") as chunks, anyio.create_task_group() as tasks:
            await chunks.receive()
            tasks.start_soon(chunks.receive)
            await all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await chunks.receive()
            tasks.cancel_scope.cancel()


async def test_misuse() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        chunks = client.stream("hi")
        with pytest.raises(RuntimeError, match="entered first"):
            await chunks.receive()
        with pytest.raises(RuntimeError, match="entered first"):
            _ = chunks.text
        chunks.stop()
        await chunks.aclose()  # not entered: nothing to close
        await chunks.__aexit__(None, None, None)
        assert not site.requests
        chunks = client.stream("hi")
        async with chunks:
            with pytest.raises(RuntimeError, match="entered once"):
                await chunks.__aenter__()
            assert await chunks.receive() == "one"


async def test_an_error_in_opening_is_bare() -> None:
    async with client_of(Drop(reset=True)) as (client, _):
        with pytest.raises(SiteConnectionError) as caught:
            async with client.stream("hi"):
                pytest.fail("entered the block without a reply")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert caught.traceback[-1].name == "open_reply"


async def test_a_reply_has_no_task_of_its_own() -> None:
    """The reactor is shared: no task on asyncio, and one system task on Trio."""

    def answer(exchange: Exchange) -> None:
        exchange.send(HEAD)
        exchange.text("one")
        exchange.until_left()

    with raw_site(answer) as site:
        async with Client(site.url, trust_env=False) as client:
            before = {task.id for task in anyio.get_running_tasks()}
            async with client.stream("hi") as chunks:
                assert await chunks.receive() == "one"
                running = [t for t in anyio.get_running_tasks() if t.id not in before]
                assert {task.name for task in running} <= {"gprochat_anyio reactor"}
                assert len(running) <= 1


async def test_an_internal_error_fails_the_reply_after_its_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise BoomError

    more = anyio.Event()
    script: Script = [Say("one"), more.wait, Say("secret"), Hang()]
    async with client_of(script, "two") as (client, site):
        async with client.stream("hi") as chunks:
            with monkeypatch.context() as patch:
                patch.setattr(TextDecoder, "feed", broken)
                more.set()
                pieces = []
                with pytest.raises(UnexpectedResponseError, match="because of a bug") as caught:
                    async for piece in chunks:
                        pieces.append(piece)  # noqa: PERF401 - the exception matters
        assert pieces == ["one"]
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        await closed(site)
        (record,) = caplog.records
        assert record.name == "gprochat_anyio"
        assert record.exc_info
        assert isinstance(record.exc_info[1], BoomError)
        assert "secret" not in caplog.text
        assert (await client.ask("hi")).text == "two"


async def test_text_if_entering_the_block_fails() -> None:
    async with scripted_site(Refuse(500, "broken")) as site, site.client() as client:
        chunks = client.stream("Hi")
        with pytest.raises(RuntimeError, match="entered first"):
            _ = chunks.text
        with pytest.raises(SiteError):
            async with chunks:
                pass
        assert chunks.text == ""
        with pytest.raises(RuntimeError, match="entered first"):
            _ = chunks.timing
