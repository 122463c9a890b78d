"""The JSON format of a conversation, and texts in its errors."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.conversations import conversing, sent
from support.prompted import prompted

from gprochat_anyio import Client, Conversation, GPROChatError, Message, Retry
from gprochat_anyio.testing import Refuse

CANARY = "canary-of-the-text"
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
