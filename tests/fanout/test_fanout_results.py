"""fan_out, as_completed and gather: the order of results, and prompts of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint
from support.fan_outs import FORMS
from support.prompted import AtOnce, prompted

from gprochat_anyio import Chunk, Finished, Message, as_completed, fan_out, gather
from gprochat_anyio.testing import Hold, Request, Say, Script, Step


class TestResults:
    async def test_events_of_one_index_come_in_order_and_all_of_them(self) -> None:
        prompts = [f"prompt {n}" for n in range(40)]
        texts = dict.fromkeys(range(40), "")
        ended = set()

        def slowly(request: Request) -> Iterator[Step | Hold]:
            for word in request.prompt.partition(" "):
                yield Say(word)
                yield checkpoint

        asked = AtOnce(slowly)
        async with prompted(asked) as (client, _):
            async with fan_out(client, prompts, max_at_once=4) as events:
                assert isinstance(events, ObjectReceiveStream)
                async for event in events:
                    assert event.index not in ended
                    if isinstance(event, Chunk):
                        assert event.text
                        texts[event.index] += event.text
                    else:
                        assert isinstance(event, Finished)
                        assert event.reply.text == texts[event.index] == prompts[event.index]
                        assert event.reply.timing.characters == len(prompts[event.index])
                        ended.add(event.index)
            assert len(ended) == 40
            assert asked.most <= 4

    async def test_as_they_arrive(self) -> None:
        first = anyio.Event()

        def answer(request: Request) -> Script:
            return Say("a"), *[first.wait] * (request.prompt == "slow"), Say("b")

        async with prompted(answer) as (client, _):
            async with as_completed(client, ["slow", "fast"]) as outcomes:
                assert (await outcomes.receive()).prompt == "fast"
                first.set()
                outcome = await outcomes.receive()
                assert (outcome.index, outcome.prompt) == (0, "slow")
                assert outcome.unwrap().text == "ab"
                with pytest.raises(anyio.EndOfStream):
                    await outcomes.receive()
                with pytest.raises(anyio.EndOfStream):
                    await outcomes.receive()

    @pytest.mark.parametrize("form", FORMS)
    async def test_gather_in_the_order_of_the_input(self, form: Callable[[Any], Any]) -> None:
        prompts = [str(n) for n in range(30)]
        async with prompted() as (client, site):
            outcomes = await gather(client, form(prompts), max_at_once=3)
            assert [outcome.index for outcome in outcomes] == list(range(30))
            assert [outcome.prompt for outcome in outcomes] == prompts
            assert [outcome.unwrap().text for outcome in outcomes] == prompts
            assert site.connections <= 3

    @pytest.mark.parametrize("form", FORMS)
    async def test_no_prompts(self, form: Callable[[Any], Any]) -> None:
        async with prompted() as (client, site):
            assert await gather(client, form([])) == []
            async with fan_out(client, form([])) as events:
                assert [event async for event in events] == []
            assert not site.requests

    async def test_prompts_of_every_kind(self) -> None:
        prompts: list[Any] = ["a", Message("user", "b"), [{"role": "user", "content": "c"}]]
        async with prompted() as (client, _):
            outcomes = await gather(client, prompts)
            assert [outcome.unwrap().text for outcome in outcomes] == ["a", "b", "c"]
            assert [outcome.prompt for outcome in outcomes] == prompts

    async def test_a_channel_of_prompts_is_left_open(self) -> None:
        send, receive = anyio.create_memory_object_stream[str](10)
        async with prompted() as (client, _):
            with send, receive:
                async with as_completed(client, receive) as outcomes:
                    for text in ("a", "b"):
                        await send.send(text)
                        assert (await outcomes.receive()).unwrap().text == text
                await send.send("c")
                assert receive.receive_nowait() == "c"
