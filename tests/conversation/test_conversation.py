"""Conversation: the recorded turns, the requests, and the JSON format."""

from __future__ import annotations

import gc
import json
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st
from support.blocked import all_tasks_blocked
from support.loops import VIRTUAL_LOOPS
from support.prompted import closed, prompted
from support.servers import open_sockets

from gprochat_anyio import (
    Client,
    Conversation,
    GPROChatError,
    InvalidPromptError,
    Message,
    ReplyInterruptedError,
    RequestTimeoutError,
    Retry,
    SiteError,
    Timeouts,
)
from gprochat_anyio._conversation.turn import latest
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Injection,
    Refuse,
    Reply,
    Request,
    Say,
    Script,
    ScriptedSite,
    cancelled,
    injections,
    scripted_site,
)

TURNS = (Message("user", "q"), Message("model", "a"))
CANARY = "canary-of-the-text"
CUT = [Say("one "), Drop()]
REFUSED = Refuse(400, "no")


class _BoomError(Exception):
    pass


def answer(request: Request) -> Script:
    """Return the script for a prompt: by default, its text in capitals."""
    scripts: dict[str, Script] = {
        "slow": [Say("one "), checkpoint, Say("two"), checkpoint],
        "endless": [Say("one "), Hang()],
        "white": "\n",
        "white, endless": [Say("\n"), Hang()],
        "cut": CUT,
        "refused": REFUSED,
    }
    question = request.prompt.rpartition("\n\n")[2]
    return scripts.get(question, question.upper())


@asynccontextmanager
async def conversing(
    *args: Any, replies: Sequence[Reply] = (answer,)
) -> AsyncIterator[tuple[Conversation, ScriptedSite]]:
    async with prompted(*replies, retry=Retry(attempts=1)) as (client, site):
        yield Conversation(client, *args), site


def said(conversation: Conversation) -> list[str]:
    return [f"{m.role}: {m.content}" for m in conversation.messages]


def sent(site: ScriptedSite) -> list[str]:
    """Return the last request's history."""
    return [f"{turn.role}: {turn.text}" for turn in site.requests[-1].messages]


async def test_turns_are_sent_with_those_before_them() -> None:
    async with conversing("Be brief.") as (conversation, site):
        reply = await conversation.ask("one")
        assert reply.text == "ONE"
        assert reply.timing.characters == 3
        async with conversation.stream("two") as chunks:
            assert said(conversation) == ["user: one", "model: ONE"]
            assert [piece async for piece in chunks] == ["TWO"]
            assert len(conversation.messages) == 4, "as soon as the reply has ended"
        assert chunks.text == "TWO"
        assert sent(site) == ["user: Be brief.\n\none", "model: ONE", "user: two"]
        assert said(conversation) == ["user: one", "model: ONE", "user: two", "model: TWO"]
        assert site.connections == 1


async def test_the_text_of_a_stopped_reply_is_kept() -> None:
    async with conversing() as (conversation, site):
        async with conversation.stream("endless") as chunks:
            async for _ in chunks:
                chunks.stop()
            assert said(conversation) == ["user: endless", "model: one "]
        await closed(site)
        async with conversation.stream("endless") as chunks:
            async for _ in chunks:
                break
        assert said(conversation)[2:] == ["user: endless", "model: one "]
        assert (await conversation.ask("next")).text == "NEXT"
        assert len(conversation.messages) == 6


async def test_a_failure_after_a_stop_removes_nothing() -> None:
    async with conversing() as (conversation, _):
        with pytest.raises(_BoomError):
            async with conversation.stream("endless") as chunks:
                await chunks.receive()
                chunks.stop()
                raise _BoomError
        assert said(conversation) == ["user: endless", "model: one "]


async def test_stopped_by_another_task() -> None:
    async with conversing() as (conversation, _):
        async with anyio.create_task_group() as tasks, conversation.stream("endless") as chunks:
            await chunks.receive()

            async def stop() -> None:
                await all_tasks_blocked()
                chunks.stop()
                chunks.stop()

            tasks.start_soon(stop)
            assert [piece async for piece in chunks] == []
        chunks.stop()
        assert said(conversation) == ["user: endless", "model: one "]


@pytest.mark.parametrize("question", ["endless", "white", "white, endless"])
async def test_a_turn_without_text_leaves_no_trace(question: str) -> None:
    async with conversing() as (conversation, _):
        async with conversation.stream(question) as chunks:
            if question != "endless":
                await chunks.receive()
        assert conversation.messages == ()
        conversation.stream("never entered").stop()
        assert conversation.messages == ()
        assert (await conversation.ask("next")).text == "NEXT"


async def test_a_failed_turn_leaves_the_history_as_it_was() -> None:
    async with conversing() as (conversation, site):
        await conversation.ask("hi")
        before = conversation.messages
        for question, kind in {
            "refused": SiteError,
            "cut": ReplyInterruptedError,
            " ": InvalidPromptError,
        }.items():
            with pytest.raises(kind):
                await conversation.ask(question)
            assert conversation.messages is before
        async with conversation.stream("cut") as chunks:
            with pytest.raises(ReplyInterruptedError):
                await chunks.read()
            chunks.stop()
        assert conversation.messages is before
        assert chunks.text == "one "
        await conversation.ask("next")
        assert sent(site) == ["user: hi", "model: HI", "user: next"]


async def test_an_exception_in_the_block() -> None:
    async with conversing() as (conversation, site):
        with pytest.raises(_BoomError) as caught:
            async with conversation.stream("endless") as chunks:
                await chunks.receive()
                raise _BoomError
        assert caught.value.__context__ is None
        assert conversation.messages == ()
        await closed(site)
        with pytest.raises(_BoomError):
            async with conversation.stream("hi") as chunks:
                await chunks.read()
                raise _BoomError
        assert said(conversation) == ["user: hi", "model: HI"], "its reply was complete"


@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
async def test_timeouts_and_cancellation() -> None:
    async with scripted_site(answer) as site, site.client() as client:
        conversation = Conversation(client)
        limits = Timeouts(idle=2)
        began = anyio.current_time()
        with pytest.raises(RequestTimeoutError) as caught:
            await conversation.ask("endless", timeouts=limits)
        assert (caught.value.phase, caught.value.partial_text) == ("idle", "one ")
        with pytest.raises(RequestTimeoutError):
            async with conversation.retry(timeouts=limits) as chunks:
                await chunks.read()
        assert anyio.current_time() - began == 4
        with anyio.move_on_after(1) as scope:
            await conversation.ask("endless")
        assert scope.cancelled_caught
        async with conversation.stream("endless") as chunks:
            with anyio.move_on_after(1):
                await chunks.read()
        assert said(conversation) == ["user: endless", "model: one "], "left as it was stopped"


async def test_retry_replaces_the_last_turn() -> None:
    better: Script = [Say("bet"), checkpoint, Say("ter")]
    worse = [Say("worse"), Drop()]
    async with conversing(replies=("ONE", "TWO", better, worse)) as (conversation, site):
        with pytest.raises(RuntimeError, match="no turn to ask again"):
            conversation.retry()
        await conversation.ask("one")
        await conversation.ask("two")
        async with conversation.retry() as chunks:
            await chunks.read()
        assert sent(site) == ["user: one", "model: ONE", "user: two"]
        assert said(conversation) == ["user: one", "model: ONE", "user: two", "model: better"]
        before = conversation.messages
        for _ in range(2):
            with pytest.raises(ReplyInterruptedError):
                async with conversation.retry() as chunks:
                    await chunks.read()
            assert conversation.messages is before
            assert sent(site) == ["user: one", "model: ONE", "user: two"]


async def test_retry_asks_a_failed_turn_again() -> None:
    async with conversing(replies=("ONE", *[REFUSED] * 3, "well")) as (conversation, site):
        await conversation.ask("one")
        for _ in range(2):
            with pytest.raises(SiteError):
                await conversation.ask("refused")
        with pytest.raises(SiteError):
            async with conversation.retry():
                pass
        asked = len(site.requests)
        async with conversation.retry() as chunks:
            await chunks.read()
        assert len(site.requests) == asked + 1
        assert sent(site) == ["user: one", "model: ONE", "user: refused"]
        assert said(conversation)[2:] == ["user: refused", "model: well"]


async def test_undo() -> None:
    async with conversing() as (conversation, _):
        assert conversation.undo() == ()
        await conversation.ask("one")
        await conversation.ask("two")
        with pytest.raises(SiteError):
            await conversation.ask("refused")
        assert conversation.undo() == (Message("user", "two"), Message("model", "TWO"))
        retried = conversation.retry()
        conversation.undo()
        assert conversation.messages == ()
        with pytest.raises(RuntimeError, match="no turn to ask again"):
            async with retried:
                raise AssertionError


async def test_one_turn_at_a_time() -> None:
    async with conversing() as (conversation, _):
        async with conversation.stream("slow") as chunks:
            for refused in (conversation.stream("two"), conversation.retry(), chunks):
                with pytest.raises(RuntimeError, match="in the middle of a turn"):
                    async with refused:
                        raise AssertionError
            with pytest.raises(RuntimeError, match="in the middle of a turn"):
                conversation.undo()
            assert await chunks.read() == "one two"
        with pytest.raises(RuntimeError, match="entered once"):
            async with chunks:
                raise AssertionError
        assert said(conversation) == ["user: slow", "model: one two"]
        await conversation.ask("next")


async def whole(conversation: Conversation) -> None:
    await conversation.ask("slow")


async def again(conversation: Conversation) -> None:
    async with conversation.retry() as chunks:
        async for _ in chunks:
            pass


async def left(conversation: Conversation) -> None:
    async with conversation.stream("slow") as chunks:
        await chunks.receive()


@pytest.mark.parametrize("operation", [whole, again, left])
async def test_cancelled_at_every_suspension(
    operation: Callable[[Conversation], Coroutine[Any, Any, None]],
) -> None:
    gc.collect()
    by_operation: dict[Any, list[str]] = {
        whole: ["q", "a", "slow", "one two"],
        again: ["q", "Q"],
        left: ["q", "a", "slow", "one "],
    }
    recorded = by_operation[operation]
    async with prompted(answer, retry=Retry(attempts=1)) as (_, site):
        port = int(site.url.rpartition(":")[2])
        history = [{"role": m.role, "parts": [{"text": m.content}]} for m in TURNS]
        seen = set()
        for moment, native in injections():
            end, at = "", 0
            while end != "not reached":
                at += 1
                client = Client(site.url, retry=Retry(attempts=1))
                conversation = Conversation.from_json(client, history)
                end = await cancelled(
                    Injection(at, moment, native), partial(operation, conversation)
                )
                texts = [m.content for m in conversation.messages]
                assert texts in (["q", "a"], recorded), (at, moment, native)
                assert end == "cancelled" or texts == recorded
                seen.add(tuple(texts))
                assert (await conversation.ask("next")).text == "NEXT"
                await client.aclose()
                assert open_sockets(port) == 0
                await closed(site)
        assert len(seen) == 2, "cancelled both before and after it was recorded"


@given(st.integers(0, 9), st.none() | st.integers(1, 25))
def test_the_latest_messages_begin_with_the_users(turns: int, limit: int | None) -> None:
    roles = ["user", *["model", "user"] * turns]
    messages = tuple(Message(role, f"{number}") for number, role in enumerate(roles))
    kept = latest(messages, limit)
    assert messages[len(messages) - len(kept) :] == kept
    assert kept[0].role == "user"
    bound = len(messages) if limit is None else limit
    assert len(kept) <= bound
    assert len(kept) in (len(messages), bound, bound - 1), "only as many as necessary are left out"


@pytest.mark.parametrize("limit", [1, 4, 5])
async def test_trimming_keeps_the_system_text(limit: int) -> None:
    async with conversing("Be brief.", limit) as (conversation, site):
        for number in range(4):
            await conversation.ask(f"{number}")
        everything = [f"{role}: {n}" for n in range(4) for role in ("user", "model")][:-1]
        first, *others = everything[-(limit - (limit + 1) % 2) :]
        assert sent(site) == [first.replace(": ", ": Be brief.\n\n"), *others]
        assert len(conversation.messages) == 8, "nothing is left out"


async def test_system_text_can_be_changed() -> None:
    async with conversing() as (conversation, site):
        assert conversation.system is None
        await conversation.ask("one")
        conversation.system = "Be brief."
        await conversation.ask("two")
        assert sent(site)[0] == "user: Be brief.\n\none"
        conversation.system = None
        await conversation.ask("three")
        assert sent(site)[0] == "user: one"


def test_invalid_settings() -> None:
    client = Client("http://site.test")
    for arguments, place in [
        ((None,), "client"),
        ((client, " "), "system"),
        ((client, 3), "system"),
        ((client, None, 0), "max_messages"),
        ((client, None, True), "max_messages"),
        ((client, None, 1.5), "max_messages"),
    ]:
        with pytest.raises(ValueError, match=place) as caught:
            Conversation(*arguments)  # type: ignore[arg-type]
        assert caught.value.__context__ is None


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(
    st.lists(st.tuples(TEXT, TEXT), max_size=5),
    st.none() | TEXT,
    st.none() | st.integers(min_value=1),
)
def test_json_round_trip(
    turns: list[tuple[str, str]], system: str | None, max_messages: int | None
) -> None:
    client = Client("http://site.test")
    page = [
        {"role": role, "parts": [{"text": text}]}
        for turn in turns
        for role, text in zip(("user", "model"), turn, strict=True)
    ]
    saved = {"version": 1, "system": system, "max_messages": max_messages, "messages": page}
    conversation = Conversation.from_json(client, saved)
    text = conversation.to_json()
    assert text.isascii()
    assert json.loads(text) == saved
    for data in (text, text.encode(), bytearray(text.encode())):
        read = Conversation.from_json(client, data)
        assert read.messages == conversation.messages
        assert (read.system, read.max_messages) == (system, max_messages)
    bare = Conversation.from_json(client, json.dumps(page))
    assert bare.messages == conversation.messages
    assert (bare.system, bare.max_messages) == (None, 99)


async def test_continuing_a_saved_conversation() -> None:
    async with conversing("Be brief.", 9) as (conversation, site):
        await conversation.ask("one")
        client = conversation._client
        read = Conversation.from_json(client, conversation.to_json())
        assert (await read.ask("two")).text == "TWO"
        assert sent(site) == ["user: Be brief.\n\none", "model: ONE", "user: two"]
        assert conversation.messages == read.messages[:2]


def frames_of_the_library(error: BaseException) -> str:
    """Return the local variables of the traceback's frames, except those of this test."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(str(f.locals) for f in shown.stack if "/tests/" not in f.filename)


def message(role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": CANARY}]} | fields


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (f'{{"{CANARY}', r"not JSON: line 1, column 2"),
        (b'["\xff"]', "not JSON: byte 2"),
        ("[" * 100_000, "nested too deeply"),
        (3, "an object with version and messages, not int"),
        ({"messages": []}, "version is missing"),
        ({"version": True, "messages": []}, "version is missing"),
        ({"version": 0, "messages": []}, "version is missing"),
        ({"version": 2, "messages": [], CANARY: 1}, "version 2 is newer"),
        ({"version": 1, "messages": [], CANARY: 1}, "fields that would be lost; it may have max"),
        ({"version": 1}, "messages must be a list"),
        ({"version": 1, "messages": CANARY}, "messages must be a list"),
        ({"version": 1, "messages": [], "system": 3}, "system must be a string, not int"),
        ({"version": 1, "messages": [], "system": " "}, "system: a message is blank"),
        ({"version": 1, "messages": [], "max_messages": 0}, "max_messages must be"),
        ([CANARY], r"messages\[0\] must be an object with role and parts"),
        ([message("model")], r"messages\[0\].role must be 'user'"),
        ([message("system")], r"messages\[0\].role must be 'user'"),
        ([message(), message()], r"messages\[1\].role must be 'model'"),
        ([message()], r"no reply, messages\[0\]"),
        ([message("assistant")], r"messages\[0\].role must be 'user'"),
        ([{"role": "assistant", "content": CANARY}], r"messages\[0\].role must be 'user'"),
        ([{"role": [CANARY], "content": CANARY}], r"messages\[0\].role must be 'user'"),
        ([{"role": "user", "content": 3}], r"parts\[0\].text must be a string, not int"),
        ([{"role": "user", "content": CANARY}], r"no reply, messages\[0\]"),
        ([{"role": "user", "content": "a", "parts": []}], r"messages\[0\] has fields"),
        (
            {"version": 1, "messages": [{"role": "user", "content": CANARY}]},
            r"messages\[0\] has fields",
        ),
        ([message(id=CANARY)], r"messages\[0\] has fields .* parts, role"),
        ([message(parts=None)], r"messages\[0\].parts must be a list"),
        ([message(parts=[])], r"messages\[0\]: a message is blank"),
        ([message(parts=[{"inlineData": CANARY}])], r"messages\[0\].parts\[0\] must be"),
        ([message(parts=[CANARY])], r"messages\[0\].parts\[0\] must be"),
        ([message(parts=[{"text": 3}])], r"parts\[0\].text must be a string, not int"),
        ([message(parts=[{"text": "\ud83d"}])], r"messages\[0\]: .* surrogate"),
    ],
)
def test_invalid_json(data: Any, place: str) -> None:
    with pytest.raises(ValueError, match=place) as caught:
        Conversation.from_json(Client("http://site.test"), data)
    error = caught.value
    assert CANARY not in f"{error!r} {frames_of_the_library(error)}"
    assert error.__context__ is None


def test_the_history_of_the_original_page() -> None:
    history = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "**ONE**"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "TWO\n"},
    ]
    client = Client("http://site.test")
    for data in (history, json.dumps(history)):
        conversation = Conversation.from_json(client, data)
        assert conversation.messages == (
            Message("user", "one"),
            Message("model", "**ONE**"),
            Message("user", "two"),
            Message("model", "TWO\n"),
        )
        assert (conversation.system, conversation.max_messages) == (None, 99)
    again = Conversation.from_json(client, conversation.to_json())
    assert again.messages == conversation.messages


def test_parts_are_joined() -> None:
    history = [message(parts=[{"text": "a"}, {"text": "b"}]), message("model")]
    conversation = Conversation.from_json(Client("http://site.test"), history)
    assert conversation.messages[0].content == "ab"


async def test_no_text_in_repr_or_errors() -> None:
    async with prompted(Refuse(500, "no"), retry=Retry(attempts=1)) as (client, _):
        conversation = Conversation.from_json(client, [message(), message("model")])
        conversation.system = CANARY
        assert repr(conversation) == f"<Conversation of 2 messages with {client!r}>"
        for text in (CANARY, f"{CANARY}\ud83d"):
            with pytest.raises(GPROChatError) as caught:
                await conversation.ask(text)
            assert CANARY not in f"{caught.value!r} {frames_of_the_library(caught.value)}"
        with pytest.raises(ValueError) as refused:
            conversation.system = f"{CANARY}\ud83d"
        assert CANARY not in f"{refused.value!r} {frames_of_the_library(refused.value)}"


async def test_a_conversation_beside_other_requests() -> None:
    async with prompted(answer) as (client, _):
        talks = [Conversation(client) for _ in range(8)]
        async with anyio.create_task_group() as tasks:
            for number, talk in enumerate(talks):
                tasks.start_soon(talk.ask, f"slow {number}")
        assert [said(talk)[1] for talk in talks] == [f"model: SLOW {n}" for n in range(8)]
