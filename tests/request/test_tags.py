"""`stream_to` with a tag: items and errors carry their prompt's tag."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any, assert_type

import anyio
import pytest
from anyio.abc import ObjectSendStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from support.blocked import all_tasks_blocked
from support.prompted import closed, prompted

from gprochat_anyio import (
    Client,
    GPROChatError,
    InvalidPromptError,
    Reply,
    ReplyInterruptedError,
    Retry,
    SiteConnectionError,
    Timeouts,
)
from gprochat_anyio.testing import Drop, Hang, Pause, Say, Script

client_of = partial(prompted, retry=Retry(backoff=0))


class Another(ObjectSendStream[Any]):
    """A send stream of another class, which wraps one."""

    def __init__(self, send: MemoryObjectSendStream[Any]) -> None:
        self._send = send

    async def send(self, item: Any) -> None:
        await self._send.send(item)

    async def aclose(self) -> None:
        await self._send.aclose()


class ByIdentity:
    """A tag that equals nothing and is not hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False


class Unprintable:
    """A tag whose `repr` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("a tag's own failure")


@pytest.mark.parametrize("tag", [7, "seven", None, False, (), ByIdentity(), Unprintable()])
async def test_items_are_pairs_of_the_tag_and_text(tag: Any) -> None:
    """None is a tag too: only omitting the argument means plain text."""
    more = anyio.Event()
    async with client_of([Say("one"), more.wait, Say("two")]) as (client, _):
        send, receive = anyio.create_memory_object_stream[tuple[Any, str]](16)
        async with receive, anyio.create_task_group() as tasks:
            await tasks.start(partial(client.stream_to, "hi", send, tag=tag))
            items = [receive.receive_nowait()]  # the first text has arrived
            more.set()
            items += [item async for item in receive]  # `send` is closed
            assert [text for _, text in items] == ["one", "two"]
            assert all(found is tag for found, _ in items)


async def test_the_reply_is_the_same_as_without_a_tag() -> None:
    async with client_of("one") as (client, _):
        send, receive = anyio.create_memory_object_stream[tuple[int, str]](16)
        with receive:
            reply = await client.stream_to("hi", send, tag=1)
    assert reply.text == "one"
    assert (reply.timing.chunks, reply.timing.characters) == (1, 3)


@pytest.mark.parametrize("kind", ["room", "full", "no room", "another"])
async def test_every_way_into_a_channel(kind: str) -> None:
    """Directly while the channel has room, and with its `send` otherwise."""
    room = {"room": 100, "full": 1, "no room": 0, "another": 0}[kind]
    texts = [f"{n}," for n in range(20)]
    more = anyio.Event()
    rest = [step for text in texts[1:] for step in (Say(text), Pause(0))]
    script: Script = [Say(texts[0]), more.wait, *rest]
    async with client_of(script) as (client, _):
        send, receive = anyio.create_memory_object_stream[tuple[str, str]](room)
        channel = Another(send) if kind == "another" else send
        async with receive, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(client.stream_to, "hi", channel, tag="t"))
            items = [await receive.receive()]
            more.set()
            await all_tasks_blocked()
            items += [item async for item in receive]
            assert {tag for tag, _ in items} == {"t"}
            assert "".join(text for _, text in items) == "".join(texts)


async def test_many_prompts_in_one_channel() -> None:
    """The text of each is complete and in order, whatever the others do."""
    script = [Say("one"), Pause(0), Say("two"), Pause(0), Say("three")]
    async with client_of(script) as (client, _):
        send, receive = anyio.create_memory_object_stream[tuple[int, str]](4)
        found: dict[int, str] = dict.fromkeys(range(10), "")
        async with receive, anyio.create_task_group() as tasks:
            async with send:
                for n in found:
                    tasks.create_task(client.stream_to("hi", send.clone(), tag=n))
            async for n, text in receive:
                found[n] += text
    assert set(found.values()) == {"onetwothree"}


async def test_the_receiver_leaves() -> None:
    async with client_of([Say("one"), Hang()]) as (client, site):
        send, receive = anyio.create_memory_object_stream[tuple[int, str]](0)
        receive.close()
        assert (await client.stream_to("hi", send, tag=1)).text == "one"
        await closed(site)


@pytest.mark.parametrize("room", [0, 10])
@pytest.mark.parametrize("closed_end", ["receive", "send"])
async def test_an_end_is_closed_between_two_texts(room: int, closed_end: str) -> None:
    more = anyio.Event()
    async with client_of([Say("one"), more.wait, Say("two"), Hang()]) as (client, site):
        send, receive = anyio.create_memory_object_stream[tuple[int, str]](room)
        with anyio.fail_after(10), send, receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(client.stream_to, "hi", send, tag=1))
                assert await receive.receive() == (1, "one")
                (receive if closed_end == "receive" else send).close()
                more.set()
            await closed(site)


async def test_an_error_before_the_first_text_has_a_note() -> None:
    async with client_of(Drop()) as (client, _):
        error = await failure_of(client, tag=3)
    assert type(error) is SiteConnectionError
    assert error.__notes__ == ["This was the prompt with the tag 3."]


async def test_an_error_after_the_first_text_has_a_note() -> None:
    async with client_of([Say("one"), Drop()]) as (client, _):
        error = await failure_of(client, tag="third")
    assert type(error) is ReplyInterruptedError
    assert error.partial_text == "one"
    assert error.__notes__ == ["This was the prompt with the tag 'third'."]


async def test_an_invalid_prompt_has_a_note_without_it() -> None:
    async with client_of() as (client, site):
        error = await failure_of(client, prompt=" ", tag=None)
        assert not site.requests
    assert type(error) is InvalidPromptError
    assert error.__notes__ == ["This was the prompt with the tag None."]


async def test_no_tag_no_note() -> None:
    async with client_of(Drop()) as (client, _):
        send, receive = anyio.create_memory_object_stream[str](1)
        with receive, pytest.raises(SiteConnectionError) as caught:
            await client.stream_to("hi", send)
    assert not hasattr(caught.value, "__notes__")


async def test_a_note_is_short_and_holds_no_prompt() -> None:
    async with client_of(*[Drop()] * 2) as (client, _):
        long = await failure_of(client, prompt="a secret", tag="x" * 10_000)
        nested = await failure_of(client, prompt="a secret", tag=[["é"] * 100] * 100)
    for error in (long, nested):
        (note,) = error.__notes__
        assert len(note) < 150
        assert note.endswith("….")
        assert "a secret" not in note


@pytest.mark.parametrize(
    "tag", [Unprintable(), 10**5000], ids=["its repr fails", "too long an int"]
)
async def test_a_tag_that_cannot_be_shown_does_not_replace_the_error(tag: Any) -> None:
    async with client_of(Drop()) as (client, _):
        error = await failure_of(client, tag=tag)
    assert type(error) is SiteConnectionError
    assert error.__notes__ == [f"This was the prompt with the tag <{type(tag).__name__}>."]


async def test_an_error_with_a_note_can_be_pickled_whatever_the_tag_is() -> None:
    async with client_of(Drop()) as (client, _):
        error = await failure_of(client, tag=lambda: None)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own data
    assert copy.__notes__ == error.__notes__


async def test_in_a_group_of_errors_each_has_its_own_note() -> None:
    async with client_of(*[Drop()] * 3) as (client, _):
        send, receive = anyio.create_memory_object_stream[tuple[int, str]](16)
        errors: list[GPROChatError] = []

        async def ask(n: int) -> None:
            try:
                await client.stream_to("hi", send.clone(), tag=n)
            except GPROChatError as error:
                errors.append(error)

        async with receive, send, anyio.create_task_group() as tasks:
            for n in range(3):
                tasks.start_soon(ask, n)
    assert sorted(error.__notes__ for error in errors) == [
        [f"This was the prompt with the tag {n}."] for n in range(3)
    ]


async def test_the_callers_own_exceptions_are_unchanged() -> None:
    """Exceptions of the caller's channel have no note, and neither do invalid settings."""

    class Failing(Another):
        async def send(self, item: Any) -> None:
            raise boom

    boom = RuntimeError("the channel's own")
    async with client_of("one") as (client, _):
        send, receive = anyio.create_memory_object_stream[Any](1)
        with receive, pytest.raises(RuntimeError) as caught:
            await client.stream_to("hi", Failing(send), tag=1)
        assert caught.value is boom
        assert not hasattr(boom, "__notes__")

        send, receive = anyio.create_memory_object_stream[Any](1)
        with receive, pytest.raises(ValueError, match="timeouts") as invalid:
            await client.stream_to("hi", send, tag=1, timeouts=1)  # type: ignore[call-overload]
        assert not hasattr(invalid.value, "__notes__")


async def test_inferred_types() -> None:
    texts: tuple[MemoryObjectSendStream[str], MemoryObjectReceiveStream[str]]
    pairs: tuple[
        MemoryObjectSendStream[tuple[int, str]], MemoryObjectReceiveStream[tuple[int, str]]
    ]
    async with client_of(*["one"] * 2) as (client, _):
        texts = anyio.create_memory_object_stream[str](9)
        assert_type(await client.stream_to("hi", texts[0], timeouts=Timeouts()), Reply)
        pairs = anyio.create_memory_object_stream[tuple[int, str]](9)
        assert_type(await client.stream_to("hi", pairs[0], tag=1), Reply)
        for receive in (texts[1], pairs[1]):
            receive.close()


def wrong_channels(  # pyright: ignore[reportUnusedFunction] - for mypy, which requires each ignore
    client: Client,
    texts: ObjectSendStream[str],
    pairs: ObjectSendStream[tuple[int, str]],
) -> list[Any]:
    """Return calls that must fail type checking."""
    return [
        client.stream_to("hi", pairs),  # type: ignore[arg-type]
        client.stream_to("hi", texts, tag=1),  # type: ignore[arg-type]
        client.stream_to("hi", pairs, tag="one"),  # type: ignore[misc]
    ]


async def failure_of(client: Client, *, prompt: str = "hi", tag: Any) -> GPROChatError:
    """Return the error of a prompt with a tag. Its text is discarded."""
    send, receive = anyio.create_memory_object_stream[Any](100)
    with receive, pytest.raises(GPROChatError) as caught:
        await client.stream_to(prompt, send, tag=tag)
    return caught.value
