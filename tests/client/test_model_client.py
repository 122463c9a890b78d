"""`Client.of`: the client of a model in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import pytest
from support.faults import WAYS, receive_by
from support.models import Saying, shout
from support.prompted import pool_of

from gprochat_anyio import (
    Client,
    Conversation,
    EmptyReplyError,
    Fleet,
    Limiter,
    Message,
    as_completed,
    fan_out,
    gather,
    race,
)
from gprochat_anyio._wire.usage import Usage
from gprochat_anyio.site import Finish, ModelError, Turn

every_way = pytest.mark.parametrize("way", WAYS[:3])


@every_way
async def test_its_texts_are_the_reply(way: str) -> None:
    pieces: list[str] = []
    async with Client.of(shout) as client:
        assert await receive_by(way, client, "one two three", into=pieces) == "ONETWOTHREE"
    assert way == "ask" or "".join(pieces) == "ONETWOTHREE"


async def test_details_of_a_reply() -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield "é"
        yield ""
        yield "b"
        yield Finish("length", Usage(7, 2))

    async with Client.of(model) as client:
        reply = await client.ask("hi")
        async with client.stream("hi") as chunks:
            assert (chunks.finish_reason, chunks.usage) == (None, None)
            assert await chunks.read() == "éb"
        pool = pool_of(client)
    assert (reply.text, reply.finish_reason, reply.usage) == ("éb", "length", Usage(7, 2))
    assert (chunks.finish_reason, chunks.usage) == ("length", Usage(7, 2))
    timing = reply.timing
    assert (timing.connect, timing.chunks, timing.characters, timing.attempts) == (0, 2, 2, 1)
    assert pool is None


async def test_a_reply_that_just_ends_has_stopped() -> None:
    async with Client.of(shout) as client:
        reply = await client.ask("hi")
        assert (reply.finish_reason, reply.usage) == ("stop", None)


async def test_a_model_gets_the_history() -> None:
    model = Saying("fine")
    async with Client.of(model) as client:
        await client.ask([Message("system", "Be brief."), Message("user", "Hello")])
        conversation = Conversation(client, system="Be kind.")
        assert (await conversation.ask("How are you?")).finish_reason == "stop"
        await conversation.ask("Really?")
    assert [[(t.role, t.text) for t in turns] for turns in model.histories] == [
        [("user", "Be brief.\n\nHello")],
        [("user", "Be kind.\n\nHow are you?")],
        [("user", "Be kind.\n\nHow are you?"), ("model", "fine"), ("user", "Really?")],
    ]


async def test_many_at_once() -> None:
    model = Saying("a", "b")
    prompts = [str(number) for number in range(40)]
    async with Client.of(model, limiter=Limiter(max_at_once=7)) as client:
        outcomes = await gather(client, prompts, max_at_once=5)
        assert [outcome.unwrap().text for outcome in outcomes] == ["ab"] * 40
        assert model.most == 5
        async with as_completed(client, prompts, max_at_once=30) as completed:
            assert sum([1 async for _ in completed]) == 40
        assert model.most == 7
        async with fan_out(client, prompts[:2]) as events:
            assert [event async for event in events]
        assert (await client.ask("hi")).text == "ab"
    assert model.running == 0


async def test_a_race_closes_the_loser() -> None:
    slow, quick = Saying("slow", pause=anyio.sleep_forever), Saying("quick")
    async with Client.of(slow) as one, Client.of(quick) as other:
        async with race([one, other], "hi") as chunks:
            assert await chunks.read() == "quick"
        assert (slow.running, quick.running) == (0, 0)


async def test_a_fleet_of_models() -> None:
    async def failing(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        raise ModelError("not today", status=503)
        yield ""

    async with Fleet([Client.of(failing), Client.of(shout)]) as fleet:
        outcomes = await gather(fleet, ["hi"] * 20)
        assert {outcome.unwrap().text for outcome in outcomes} == {"HI"}


async def test_it_runs_in_the_callers_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="")

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield variable.get()

    async with Client.of(model) as client:
        for value in ("one", "two"):
            variable.set(value)
            assert (await client.ask("hi")).text == value


@every_way
async def test_a_model_without_text(way: str) -> None:
    async with Client.of(Saying("")) as client:
        with pytest.raises(EmptyReplyError):
            await receive_by(way, client)


class Named:
    name = "by its attribute"

    def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        return shout(turns)


class Unnamed:
    def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        return shout(turns)


def test_names() -> None:
    for model, name in (
        (shout, "shout"),
        (partial(shout), "shout"),
        (Named(), "by its attribute"),
        (Unnamed(), "Unnamed"),
    ):
        client = Client.of(model)
        assert (client.model, client.url) == (name, f"model:{name}")
        assert repr(client) == f"<Client of model:{name}>"
    assert Client.of(Named(), name="given").url == "model:given"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "llama"}, "model must be a callable"),
        ({"model": None}, "model must be a callable"),
        ({"name": 5}, "name must be str"),
        ({"name": "\udcff"}, "name is not valid Unicode; check how it was read"),
        ({"timeouts": 5}, "timeouts must be Timeouts"),
        ({"retry": 5}, "retry must be Retry"),
        ({"limiter": 5}, "limiter must be Limiter"),
        ({"max_reply_size": 0}, "max_reply_size must be at least 1"),
        ({"max_reply_size": "9"}, "max_reply_size must be int"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Client.of(**{"model": shout, **settings})


async def test_methods_that_need_a_site() -> None:
    async with Client.of(shout) as client:
        with pytest.raises(TypeError, match="only a GPROChat site can check a password"):
            await client.check_password()
    with pytest.raises(RuntimeError, match="closed"):
        await client.ask("hi")
