"""ReplyStream, ask and stream_to: order, backpressure, leaving, stopping, misuse."""

from __future__ import annotations

import contextvars
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint, current_token
from anyio.streams.stapled import StapledObjectStream
from loops import VIRTUAL_LOOPS
from scripted import HEAD, LAST_CHUNK, End, Script, Site, chunk, loopback_site, memory_site, reply

from gprochat_anyio import Client, ReplyInterruptedError, ReplyStream, Retry, SiteConnectionError

OPEN_ENDED: Script = (HEAD + chunk("one"),)


@asynccontextmanager
async def client_of(*scripts: Script) -> AsyncIterator[tuple[Client, Site]]:
    with anyio.fail_after(10):
        async with (
            loopback_site(*scripts) as site,
            Client(site.url, retry=Retry(backoff=0)) as client,
        ):
            yield client, site


async def closed(site: Site) -> None:
    """Wait until the site has seen every connection's end."""
    while site.open:
        await site.closed.wait()


class _BoomError(Exception):
    pass


async def test_stream_is_an_object_receive_stream() -> None:
    async with client_of((reply("one", "two"),)) as (client, _):
        async with client.stream("hi") as chunks:
            assert isinstance(chunks, ReplyStream)
            assert isinstance(chunks, ObjectReceiveStream)
            assert await chunks.receive() == "onetwo"  # what is ready comes in one piece
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
    async with client_of((HEAD + chunk("one"), more.wait, chunk("two") + LAST_CHUNK)) as (
        client,
        _,
    ):
        async with client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            assert chunks.text == "one"
            more.set()
            assert await chunks.receive() == "two"
            assert [piece async for piece in chunks] == []


async def test_connections_are_kept_and_given_back() -> None:
    async with client_of((reply("a"),)) as (client, site):
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


async def test_the_callers_exception_leaves_as_it_is() -> None:
    boom = _BoomError()
    async with client_of(OPEN_ENDED) as (client, site):
        with pytest.raises(_BoomError) as caught:
            async with client.stream("hi"):
                raise boom
        assert caught.value is boom
        assert caught.value.__context__ is None
        await closed(site)


async def test_the_callers_group_leaves_as_it_is() -> None:
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


async def test_an_exception_wins_over_a_cancelled_scope() -> None:
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


@pytest.mark.parametrize("end", [End.FIN, End.RST])
async def test_a_failure_comes_behind_all_text(end: End) -> None:
    texts = [f"{n};" for n in range(5)]
    async with client_of((HEAD + b"".join(map(chunk, texts)), end)) as (client, site):
        pieces: list[str] = []
        async with client.stream("hi") as chunks:
            await closed(site)
            with pytest.raises(ReplyInterruptedError, match="ask again") as caught:
                async for piece in chunks:
                    pieces.append(piece)  # noqa: PERF401 - the exception is the point
            with pytest.raises(ReplyInterruptedError):
                await chunks.receive()
        if end is End.FIN:  # a reset may overtake what was sent before it
            assert "".join(pieces) == "".join(texts)
        assert caught.value.partial_text == chunks.text == "".join(pieces)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


async def test_read_collects_the_rest() -> None:
    more = anyio.Event()
    async with client_of((HEAD + chunk("one"), more.wait, chunk("two") + LAST_CHUNK)) as (
        client,
        _,
    ):
        async with client.stream("hi") as chunks:
            await chunks.receive()
            more.set()
            assert await chunks.read() == "two"
        assert chunks.text == "onetwo"


async def test_receive_is_a_checkpoint_each_time() -> None:
    async with client_of((reply("a"),), OPEN_ENDED) as (client, _):
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
                    assert await chunks.receive()  # and nothing was lost


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
    """As a signal handler is, which has no task and no context of one."""
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


async def test_stop_drops_what_was_not_given() -> None:
    async with client_of(OPEN_ENDED) as (client, _):
        async with client.stream("hi") as chunks:
            chunks.stop()
            assert await chunks.read() == ""
            assert chunks.text == ""


async def test_stop_before_anything_is_read() -> None:
    async with client_of(OPEN_ENDED, (reply("b"),)) as (client, site):
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
            await anyio.wait_all_tasks_blocked()
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
        await chunks.aclose()  # nothing to close yet
        assert not site.requests
        chunks = client.stream("hi")
        async with chunks:
            with pytest.raises(RuntimeError, match="entered once"):
                await chunks.__aenter__()
            async with anyio.create_task_group() as tasks:

                async def leave() -> None:
                    with pytest.raises(RuntimeError, match="by the task that entered it"):
                        await chunks.__aexit__(None, None, None)

                tasks.start_soon(leave)
            assert await chunks.receive() == "one"


async def test_an_error_in_opening_is_bare() -> None:
    async with client_of((End.RST,)) as (client, _):
        with pytest.raises(SiteConnectionError) as caught:
            async with client.stream("hi"):
                pytest.fail("there is no reply")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert caught.traceback[-1].name == "open_reply"


async def test_stream_to() -> None:
    more = anyio.Event()
    async with client_of((HEAD + chunk("one"), more.wait, chunk("two") + LAST_CHUNK)) as (
        client,
        _,
    ):
        send, receive = anyio.create_memory_object_stream[str](16)
        async with receive, anyio.create_task_group() as tasks:
            await tasks.start(client.stream_to, "hi", send)
            assert await receive.receive() == "one"
            more.set()
            assert [piece async for piece in receive] == ["two"]  # and `send` is closed


async def test_stream_to_returns_the_reply() -> None:
    async with client_of((reply("one"),)) as (client, _):
        send, receive = anyio.create_memory_object_stream[str](16)
        with receive:
            result = await client.stream_to("hi", send)
            assert (result.text, str(result)) == ("one", "one")
            assert "one" not in repr(result)
            assert receive.receive_nowait() == "one"


@pytest.mark.parametrize("kind", ["full", "another", "stapled"])
async def test_stream_to_waits_for_the_channel(kind: str) -> None:
    class Another(ObjectSendStream[str]):
        """A stream that is no memory object stream."""

        async def send(self, item: str) -> None:
            await send.send(item)

        async def aclose(self) -> None:
            await send.aclose()

    more = anyio.Event()
    texts = [f"{n}" for n in range(20)]
    rest = [step for text in texts[1:] for step in (chunk(text), 0.0)]
    script = (HEAD + chunk(texts[0]), more.wait, *rest, LAST_CHUNK)
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
            await anyio.wait_all_tasks_blocked()
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


async def test_stream_to_closes_its_end_on_failure() -> None:
    async with client_of((End.FIN,)) as (client, _):
        send, receive = anyio.create_memory_object_stream[str](0)
        with receive:
            with pytest.raises(SiteConnectionError):
                await client.stream_to("hi", send)
            with pytest.raises(anyio.EndOfStream):
                await receive.receive()


async def test_one_channel_for_many() -> None:
    async with client_of((reply("a"),)) as (client, _):
        send, receive = anyio.create_memory_object_stream[str](16)
        async with anyio.create_task_group() as tasks:
            with send, receive:
                for _ in range(5):
                    tasks.start_soon(client.stream_to, "hi", send.clone())
                send.close()
                assert [piece async for piece in receive] == ["a"] * 5


@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
async def test_nothing_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tuple(step for n in range(100) for step in (chunk(f"{n:03}"), 0.1))
    async with memory_site(monkeypatch, (HEAD, *texts, LAST_CHUNK)) as site:
        async with Client(site.url) as client, client.stream("hi") as chunks:
            text = ""
            for taken in (1, 4, 7):  # soon after the first text, and while the clocks are watched
                await anyio.sleep(60)
                while chunks.timing.chunks < taken or not text:
                    text += await chunks.receive()
                await anyio.sleep(60)
                assert (chunks.timing.chunks, len(text)) == (taken, 3 * taken)
            assert len(text + await chunks.read()) == 300


async def test_nothing_is_left_open() -> None:
    async with client_of(OPEN_ENDED) as (client, _):
        async with client.stream("hi") as chunks:
            await chunks.receive()
        del chunks
        gc.collect()  # an open channel would warn, and a warning fails the test


async def test_no_task_is_spawned_for_a_reply_that_is_there() -> None:
    async with client_of((reply("a"),)) as (client, _):
        async with client.stream("hi") as chunks:
            assert chunks._tasks is None
            assert await chunks.read() == "a"


async def test_a_bug_below_reaches_the_caller_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks:

            async def broken() -> str:
                raise _BoomError

            monkeypatch.setattr(type(chunks._live), "next_text", lambda _: broken())
            pieces = []
            with pytest.raises(_BoomError):
                async for piece in chunks:
                    pieces.append(piece)  # noqa: PERF401 - the exception is the point
        assert pieces == ["one"]
        await closed(site)


@pytest.mark.parametrize("anyio_backend", [pytest.param(("trio", {}), id="trio")])
async def test_ctrl_c_in_the_watch_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Trio, which raises it in whichever task runs; asyncio stops the loop instead."""
    script = (HEAD, *[step for _ in range(9) for step in (chunk("a"), 0.01)], anyio.sleep_forever)
    async with client_of(script) as (client, site):
        with pytest.raises(KeyboardInterrupt):
            async with client.stream("hi") as chunks:

                async def interrupted() -> None:
                    raise KeyboardInterrupt

                monkeypatch.setattr(type(chunks._reply.clocks), "watch", lambda _: interrupted())
                await chunks.read()
        await closed(site)
