"""Conversation: the recorded turns, the requests, and the limit on messages."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st
from support.blocked import all_tasks_blocked
from support.conversations import REFUSED, answer, conversing, said, sent
from support.exceptions import BoomError
from support.prompted import closed, prompted

from gprochat_anyio import (
    Client,
    Conversation,
    InvalidPromptError,
    Message,
    ReplyInterruptedError,
    SiteError,
)
from gprochat_anyio._conversation.turn import latest
from gprochat_anyio.testing import Drop, Say, Script


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
        with pytest.raises(BoomError):
            async with conversation.stream("endless") as chunks:
                await chunks.receive()
                chunks.stop()
                raise BoomError
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
        with pytest.raises(BoomError) as caught:
            async with conversation.stream("endless") as chunks:
                await chunks.receive()
                raise BoomError
        assert caught.value.__context__ is None
        assert conversation.messages == ()
        await closed(site)
        with pytest.raises(BoomError):
            async with conversation.stream("hi") as chunks:
                await chunks.read()
                raise BoomError
        assert said(conversation) == ["user: hi", "model: HI"], "its reply was complete"


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


async def test_a_conversation_beside_other_requests() -> None:
    async with prompted(answer) as (client, _):
        talks = [Conversation(client) for _ in range(8)]
        async with anyio.create_task_group() as tasks:
            for number, talk in enumerate(talks):
                tasks.start_soon(talk.ask, f"slow {number}")
        assert [said(talk)[1] for talk in talks] == [f"model: SLOW {n}" for n in range(8)]
