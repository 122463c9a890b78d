"""ReplyStream, ask and stream_to: order, backpressure, leaving, stopping, misuse."""

from __future__ import annotations

import contextvars
import gc
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint, current_token
from anyio.streams.stapled import StapledObjectStream
from support.blocked import all_tasks_blocked
from support.loops import VIRTUAL_LOOPS
from support.prompted import closed, prompted
from support.raw_site import HEAD, Exchange, raw_site
from support.response_bytes import LAST_CHUNK, REPLY_HEAD, chunk
from support.scripted import reply

from gprochat_anyio import (
    Client,
    ReplyInterruptedError,
    ReplyStream,
    Retry,
    SiteConnectionError,
    SiteError,
    Timeouts,
    UnexpectedResponseError,
)
from gprochat_anyio._wire.reply_decoder import TextDecoder
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Pause,
    Raw,
    Refuse,
    Say,
    Script,
    at_every_checkpoint,
    scripted_site,
)

OPEN_ENDED = [Say("one"), Hang()]
LONG = Timeouts(idle=None, total=None)

client_of = partial(prompted, retry=Retry(backoff=0))


class _BoomError(Exception):
    pass


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


@pytest.mark.parametrize("left_after", [0, 1])
async def test_leaving_closes_the_connection(left_after: int) -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks:
            if left_after:
                async for _ in chunks:
                    break
        await closed(site)
        assert chunks.text == "one" * left_after


async def test_the_callers_exception_is_not_wrapped() -> None:
    boom = _BoomError()
    async with client_of(OPEN_ENDED) as (client, site):
        with pytest.raises(_BoomError) as caught:
            async with client.stream("hi"):
                raise boom
        assert caught.value is boom
        assert caught.value.__context__ is None
        await closed(site)


async def test_the_callers_group_is_not_wrapped() -> None:
    group = ExceptionGroup("mine", [_BoomError()])
    async with client_of(OPEN_ENDED) as (client, _):
        with pytest.raises(ExceptionGroup) as caught:
            async with client.stream("hi"):
                raise group
        assert caught.value is group


async def test_the_callers_cancellation() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        with anyio.CancelScope() as scope:
            async with client.stream("hi") as chunks:
                await chunks.receive()
                scope.cancel()
                await chunks.receive()
        assert scope.cancelled_caught
        await closed(site)


async def test_an_exception_takes_precedence_over_a_cancelled_scope() -> None:
    boom = _BoomError()
    async with client_of(OPEN_ENDED) as (client, site):
        with anyio.CancelScope() as scope, pytest.raises(_BoomError) as caught:
            async with client.stream("hi"):
                scope.cancel()
                raise boom
        assert caught.value is boom
        await closed(site)


async def test_cancelling_ask_closes_the_connection() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, "hi")
            while not site.requests:
                await checkpoint()
            tasks.cancel_scope.cancel()
        await closed(site)


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


async def test_stop_from_another_task() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks, anyio.create_task_group() as tasks:

            async def stop() -> None:
                while not chunks.text:
                    await checkpoint()
                chunks.stop()

            tasks.start_soon(stop)
            assert [piece async for piece in chunks] == ["one"]
            await closed(site)
        assert chunks.text == "one"


async def test_stop_from_a_callback_of_the_event_loop() -> None:
    """Like a signal handler, it has neither a task nor a context."""
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            loop: Any = current_token().native_token
            if hasattr(loop, "call_soon"):
                loop.call_soon(chunks.stop, context=contextvars.Context())
            else:
                loop.run_sync_soon(chunks.stop)
            assert await chunks.read() == ""
            await closed(site)


async def test_stop_discards_buffered_text() -> None:
    async with client_of(OPEN_ENDED) as (client, _):
        async with client.stream("hi") as chunks:
            chunks.stop()
            assert await chunks.read() == ""
            assert chunks.text == ""


async def test_stop_before_anything_is_read() -> None:
    async with client_of(OPEN_ENDED, "b") as (client, site):
        async with client.stream("hi") as chunks:
            chunks.stop()
        await closed(site)
        async with client.stream("hi") as chunks:
            chunks.stop()
            assert await chunks.read() == ""


async def test_two_receivers() -> None:
    async with client_of(OPEN_ENDED) as (client, _):
        async with client.stream("hi") as chunks, anyio.create_task_group() as tasks:
            await chunks.receive()
            tasks.start_soon(chunks.receive)
            await all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await chunks.receive()
            tasks.cancel_scope.cancel()


async def test_closed_from_another_task() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks, anyio.create_task_group() as tasks:
            await chunks.receive()
            tasks.start_soon(chunks.aclose)
            with pytest.raises(anyio.ClosedResourceError, match="closed"):
                await chunks.receive()
            await closed(site)
        with pytest.raises(anyio.ClosedResourceError):
            await chunks.receive()
        assert chunks.text == "one"


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


async def test_left_by_another_task_and_in_any_order() -> None:
    """The block owns no task group and no cancel scope."""
    async with client_of(OPEN_ENDED) as (client, site):
        first, second = client.stream("hi"), client.stream("hi")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.__aenter__)
            await all_tasks_blocked()
            await second.__aenter__()
            assert await first.receive() == "one"
            await first.__aexit__(None, None, None)
            assert await second.receive() == "one"
            tasks.start_soon(second.__aexit__, None, None, None)
        await closed(site)
        for chunks in (first, second):
            with pytest.raises(anyio.ClosedResourceError):
                await chunks.receive()


async def test_an_error_in_opening_is_bare() -> None:
    async with client_of(Drop(reset=True)) as (client, _):
        with pytest.raises(SiteConnectionError) as caught:
            async with client.stream("hi"):
                pytest.fail("entered the block without a reply")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert caught.traceback[-1].name == "open_reply"


async def test_stream_to() -> None:
    more = anyio.Event()
    async with client_of([Say("one"), more.wait, Say("two")]) as (client, _):
        send, receive = anyio.create_memory_object_stream[str](16)
        async with receive, anyio.create_task_group() as tasks:
            await tasks.start(client.stream_to, "hi", send)
            assert await receive.receive() == "one"
            more.set()
            assert [piece async for piece in receive] == ["two"]  # `send` is closed


async def test_stream_to_returns_the_reply() -> None:
    async with client_of("canary") as (client, _):
        send, receive = anyio.create_memory_object_stream[str](16)
        with receive:
            result = await client.stream_to("hi", send)
            assert (result.text, str(result)) == ("canary", "canary")
            assert "canary" not in repr(result)
            assert receive.receive_nowait() == "canary"


@pytest.mark.parametrize("kind", ["full", "another", "stapled"])
async def test_stream_to_waits_for_the_channel(kind: str) -> None:
    class Another(ObjectSendStream[str]):
        """A send stream of another class."""

        async def send(self, item: str) -> None:
            await send.send(item)

        async def aclose(self) -> None:
            await send.aclose()

    more = anyio.Event()
    texts = [f"{n}" for n in range(20)]
    rest = [step for text in texts[1:] for step in (Say(text), Pause(0))]
    script: Script = [Say(texts[0]), more.wait, *rest]
    async with client_of(script) as (client, _):
        send, receive = anyio.create_memory_object_stream[str](1 if kind == "full" else 0)
        async with receive, anyio.create_task_group() as tasks:
            ways = {
                "full": send,
                "another": Another(),
                "stapled": StapledObjectStream(Another(), receive),
            }
            tasks.start_soon(client.stream_to, "hi", ways[kind])
            received = [await receive.receive()]
            more.set()
            await all_tasks_blocked()
            with suppress(anyio.EndOfStream, anyio.ClosedResourceError):
                while True:
                    received.append(await receive.receive())
            assert "".join(received) == "".join(texts)


async def test_stream_to_a_receiver_that_left() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        send, receive = anyio.create_memory_object_stream[str](0)
        receive.close()
        assert (await client.stream_to("hi", send)).text == "one"
        await closed(site)


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        (chunk(b"two\xff"), "onetwo"),  # a failure after the text that was not delivered
        (chunk(b"Inter") + b"x\r\n", "oneInter"),  # the same with held-back text
    ],
)
async def test_stream_to_a_receiver_that_left_does_not_fail(rest: bytes, text: str) -> None:
    more = anyio.Event()
    async with client_of([Say("one"), more.wait, Raw(rest), Hang()]) as (client, site):
        send, receive = anyio.create_memory_object_stream[str](1)
        async with anyio.create_task_group() as tasks:

            async def forward() -> None:
                assert (await client.stream_to("hi", send)).text == text

            tasks.start_soon(forward)
            assert await receive.receive() == "one"
            receive.close()
            more.set()
        await closed(site)


async def test_stream_to_a_receiver_that_leaves_while_text_waits_for_room() -> None:
    async with client_of([Say("one"), Say("two"), Hang()]) as (client, site):
        send, receive = anyio.create_memory_object_stream[str](1)
        async with anyio.create_task_group() as tasks:

            async def forward() -> None:
                assert (await client.stream_to("hi", send)).text == "onetwo"

            tasks.start_soon(forward)
            while not receive.statistics().tasks_waiting_send:
                await checkpoint()
            receive.close()
        await closed(site)


async def test_stream_to_closes_its_end_on_failure() -> None:
    async with client_of(Drop()) as (client, _):
        send, receive = anyio.create_memory_object_stream[str](0)
        with receive:
            with pytest.raises(SiteConnectionError):
                await client.stream_to("hi", send)
            with pytest.raises(anyio.EndOfStream):
                await receive.receive()


async def test_one_channel_for_many() -> None:
    async with client_of("a") as (client, _):
        send, receive = anyio.create_memory_object_stream[str](16)
        async with anyio.create_task_group() as tasks:
            with send, receive:
                for _ in range(5):
                    tasks.start_soon(client.stream_to, "hi", send.clone())
                send.close()
                assert [piece async for piece in receive] == ["a"] * 5


@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
@pytest.mark.parametrize("letter", ["a", "é", "😀"])
async def test_at_most_64_kib_are_read_ahead(letter: str) -> None:
    """The read that reaches this limit is the last one, until less than 32 KiB wait."""
    size = len(letter.encode())
    texts = [f"{n:03}" + letter * ((1000 - 3) // size) for n in range(200)]
    one = len(texts[0].encode())
    high, low = -(-65536 // one), 32768 // one
    script = [step for text in texts for step in (Say(text), Pause(0.1))]
    async with scripted_site(script) as site:
        async with site.client(timeouts=LONG) as client, client.stream("hi") as chunks:
            await anyio.sleep(60)
            assert chunks.timing.chunks == high
            text, arrived = "", high
            for _ in range(4):
                while (waiting := arrived - len(text.encode()) // one) > low:
                    assert chunks.timing.chunks == arrived
                    await anyio.sleep(60)
                    text += await chunks.receive()
                await anyio.sleep(60)
                arrived = min(arrived + high - waiting, len(texts))
                assert chunks.timing.chunks == arrived
            assert text + await chunks.read() == "".join(texts)


@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
async def test_a_slow_consumer_gets_the_rest_in_one_piece() -> None:
    texts = [f"{n:03}" for n in range(100)]
    async with scripted_site([step for text in texts for step in (Say(text), Pause(0.1))]) as site:
        async with site.client() as client, client.stream("hi") as chunks:
            await anyio.sleep(60)
            assert chunks.statistics().current_buffer_used == 17
            pieces = [piece async for piece in chunks]
    assert pieces == [*texts[:16], "".join(texts[16:])]
    assert chunks.timing.chunks == 100  # as they arrived


@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
async def test_receive_nowait_and_statistics() -> None:
    async with scripted_site([Say("one"), Say("two"), Pause(1), Say("three")]) as site:
        async with site.client() as client, client.stream("hi") as chunks:
            await anyio.sleep(0.5)
            statistics = chunks.statistics()
            assert (statistics.current_buffer_used, statistics.open_send_streams) == (2, 1)
            assert statistics.open_receive_streams == 1
            assert [chunks.receive_nowait(), chunks.receive_nowait()] == ["one", "two"]
            with pytest.raises(anyio.WouldBlock):
                chunks.receive_nowait()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(chunks.receive)
                await all_tasks_blocked()
                assert chunks.statistics().tasks_waiting_receive == 1
            assert chunks.statistics().tasks_waiting_receive == 0
            assert chunks.text == "onetwothree"
            with pytest.raises(anyio.EndOfStream):
                chunks.receive_nowait()
            assert chunks.statistics().open_send_streams == 0
            chunks.stop()
            with pytest.raises(anyio.EndOfStream):
                chunks.receive_nowait()
        assert chunks.statistics().open_receive_streams == 0
        with pytest.raises(anyio.ClosedResourceError):
            chunks.receive_nowait()


async def test_nothing_is_left_open() -> None:
    async with client_of(OPEN_ENDED) as (client, _):
        async with client.stream("hi") as chunks:
            await chunks.receive()
        del chunks
        gc.collect()  # an open channel would warn, and a warning fails the test


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
        raise _BoomError

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
        assert isinstance(record.exc_info[1], _BoomError)
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


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (chunk(b"two") + LAST_CHUNK, anyio.EndOfStream),
        (chunk(b"two") + b"x\r\n", ReplyInterruptedError),
        (chunk(b"two\xff"), ReplyInterruptedError),
    ],
)
async def test_the_last_text_is_not_lost_to_a_cancelled_read(
    last: bytes, error: type[Exception]
) -> None:
    """The text has arrived, and the connection is being closed, when the task is cancelled."""
    head = REPLY_HEAD.replace(b"Connection: keep-alive", b"Connection: close")
    async with scripted_site([Raw(head + chunk(b"one")), Raw(last)]) as site:
        for cancel in at_every_checkpoint():
            async with site.client() as client, client.stream("Hi") as chunks:
                got = [await chunks.receive()]

                async def read(chunks: ReplyStream = chunks, got: list[str] = got) -> None:
                    got.append(await chunks.receive())

                await cancel(read)
                with pytest.raises(error):
                    while True:
                        await read()
            assert got == ["one", "two"], cancel
