"""Timeouts as a value, and as an argument of every method."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from gprochat_anyio import Client, Conversation, Timeouts, as_completed, fan_out, gather, race


def test_some_fields_replaced() -> None:
    """The result sets all four fields, and so overrides all four of a client's."""
    replaced = dataclasses.replace(Timeouts(idle=None, total=90), total=5)
    assert repr(replaced) == "Timeouts(connect=10.0, first_chunk=60.0, idle=None, total=5.0)"
    assert repr(Timeouts(connect=1, idle=2).under(replaced)) == repr(replaced)
    with pytest.raises(ValueError, match="idle must not be negative"):
        dataclasses.replace(replaced, idle=-1)


def test_copied() -> None:
    limits = Timeouts(total=5)
    for again in (copy.copy(limits), pickle.loads(pickle.dumps(limits))):  # noqa: S301
        assert again == limits
        assert repr(Timeouts(idle=2).under(again)) == repr(Timeouts(idle=2, total=5))


@pytest.mark.parametrize("limits", [30, 30.0, {"total": 30}])
async def test_an_invalid_argument(limits: Any) -> None:
    async def stream_to(client: Client) -> None:
        send, receive = anyio.create_memory_object_stream[str](1)
        with receive:
            await client.stream_to("Hi", send, timeouts=limits)

    async def in_place(make: Callable[..., Any], *args: Any) -> None:
        make(*args, timeouts=limits)

    client = Client("http://site.test")
    conversation = Conversation(client)
    for call in (
        lambda: client.ask("Hi", timeouts=limits),
        lambda: stream_to(client),
        lambda: conversation.ask("Hi", timeouts=limits),
        lambda: gather(client, ["Hi"], timeouts=limits),
        lambda: in_place(client.stream, "Hi"),
        lambda: in_place(conversation.stream, "Hi"),
        lambda: in_place(fan_out, client, ["Hi"]),
        lambda: in_place(as_completed, client, ["Hi"]),
        lambda: in_place(race, client, "Hi"),
    ):
        with pytest.raises(ValueError, match="timeouts must be Timeouts or None, not"):
            await call()
