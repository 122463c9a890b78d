"""Prompts of fan-outs in every form, and a site that fails as the prompt says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from gprochat_anyio.testing import Drop, Hang, Refuse, Request, Say, Script

from .prompted import echo

OPEN_ENDED = (Say("one"), Hang())


def by_name(request: Request) -> Script:
    """Return the script of the failure that the prompt names."""
    if request.prompt == "refused":
        return Refuse(400, "no")
    if request.prompt == "cut":
        return Say("some"), Drop()
    if request.prompt == "endless":
        return OPEN_ENDED
    return echo(request)


def numbers() -> Iterator[str]:
    number = 0
    while True:
        yield str(number)
        number += 1


async def as_async(prompts: Any) -> AsyncGenerator[Any]:
    for prompt in prompts:
        await checkpoint()
        yield prompt


FORMS: list[Any] = [
    pytest.param(list, id="list"),
    pytest.param(iter, id="iterator"),
    pytest.param(lambda prompts: (p for p in prompts), id="generator"),
    pytest.param(as_async, id="async generator"),
]
