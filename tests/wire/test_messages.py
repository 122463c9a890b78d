"""Prompts and histories: the accepted forms, and their texts."""

from __future__ import annotations

from typing import Any

import pytest

from gprochat_anyio import GPROChatError, InvalidPromptError, Message, format_prompt
from gprochat_anyio._wire.messages import folded, history

USER, MODEL, SYSTEM = (
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "m"},
    {"role": "system", "content": "s"},
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hi", [("user", "hi")]),
        (Message("user", "hi"), [("user", "hi")]),
        ([USER], [("user", "u")]),
        ((USER, MODEL, USER), [("user", "u"), ("model", "m"), ("user", "u")]),
        ([USER, Message("model", "x"), USER], [("user", "u"), ("model", "x"), ("user", "u")]),
        ([SYSTEM, USER], [("system", "s"), ("user", "u")]),
        (
            [USER, MODEL, SYSTEM, USER],
            [("system", "s"), ("user", "u"), ("model", "m"), ("user", "u")],
        ),
        (
            [SYSTEM, {"role": "developer", "content": "d"}, USER],
            [("system", "s\n\nd"), ("user", "u")],
        ),
        ([USER, USER], [("user", "u\n\nu")]),
        ([MODEL, USER], [("model", "m"), ("user", "u")]),
        ([SYSTEM, MODEL, USER], [("system", "s"), ("model", "m"), ("user", "u")]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}],
            [("user", "ab")],
        ),
        ("half \u00e9 and 😀", [("user", "half \u00e9 and 😀")]),
    ],
)
def test_history(prompt: Any, expected: list[tuple[str, str]]) -> None:
    assert [(m.wire_role, m.content) for m in history(prompt)] == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ([USER], [("user", "u")]),
        ([SYSTEM, USER], [("user", "s\n\nu")]),
        ([SYSTEM, MODEL, USER], [("model", "m"), ("user", "s\n\nu")]),
        ([USER, MODEL, SYSTEM, USER], [("user", "s\n\nu"), ("model", "m"), ("user", "u")]),
    ],
)
def test_a_system_text_goes_before_the_first_text_of_the_user(
    prompt: Any, expected: list[tuple[str, str]]
) -> None:
    assert [(m.wire_role, m.content) for m in folded(history(prompt))] == expected


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], "no user message"),
        ([SYSTEM], "no user message"),
        ([USER, MODEL], "last message must be the user's"),
        ("", "blank"),
        (" \n\t", "blank"),
        ([{"role": "user", "content": []}], "blank"),
        ([USER, {"role": "model", "content": " "}, USER], "blank"),
        ([{"role": "tool", "content": "x"}], "unknown role"),
        ([{"role": 7, "content": "x"}], "role must be a str, not int"),
        ([{"role": ["user"], "content": "x"}], "role must be a str, not list"),
        ([{"role": "user"}], "Message or"),
        (["user"], "Message or"),
        ([{"role": "user", "content": 7}], "not int"),
        ([{"role": "user", "content": b"x"}], "not bytes"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "part"),
        ([{"role": "user", "content": [{"type": "image", "text": "x"}]}], "part"),
        ([{"role": "user", "content": ["x"]}], "part"),
        (7, "not int"),
        (None, "not NoneType"),
        (USER, "not dict"),
        ("a\ud83d", "lone surrogate at character 1"),
    ],
)
def test_refused(prompt: Any, says: str) -> None:
    with pytest.raises(InvalidPromptError, match=says) as caught:
        history(prompt)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, GPROChatError)


def test_message_refuses_a_role_of_another_type() -> None:
    with pytest.raises(InvalidPromptError, match="unknown role"):
        Message(7, "x")  # type: ignore[arg-type]


def test_repr_hides_the_text() -> None:
    assert repr(Message("user", "a secret")) == "Message(role='user', 8 characters)"


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([USER], "u"),
        ([Message("user", "u")], "u"),
        ([USER, MODEL, USER], "User: u\nAssistant: m\nUser: u\nAssistant:"),
        ([SYSTEM, USER], "System: s\nUser: u\nAssistant:"),
        ([{"role": "user", "content": " "}, USER], "User: u\nAssistant:"),
        ([{"role": "USER", "content": "x"}, USER], "User: x\nUser: u\nAssistant:"),
    ],
)
def test_format_prompt(messages: Any, text: str) -> None:
    assert format_prompt(messages) == text


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": " "}]])
def test_format_prompt_refuses(messages: Any) -> None:
    with pytest.raises(InvalidPromptError, match="no text"):
        format_prompt(messages)
