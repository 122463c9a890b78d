"""stream_to: the caller's channel, which may be slow, shared or left."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from anyio.abc import ObjectSendStream
from anyio.lowlevel import checkpoint
from anyio.streams.stapled import StapledObjectStream
from support.blocked import all_tasks_blocked
from support.prompted import closed
from support.response_bytes import chunk
from support.streams import OPEN_ENDED, client_of

from gprochat_anyio import SiteConnectionError
from gprochat_anyio.testing import Drop, Hang, Pause, Raw, Say, Script


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
    more = anyio.Event()
    script: Script = [Say("one"), more.wait, Say("two"), Hang()]
    async with client_of(script) as (client, site):
        send, receive = anyio.create_memory_object_stream[str](1)
        async with anyio.create_task_group() as tasks:

            async def forward() -> None:
                assert (await client.stream_to("hi", send)).text == "onetwo"

            tasks.start_soon(forward)
            while not receive.statistics().current_buffer_used:
                await checkpoint()
            more.set()
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
