"""The work for a reply does not grow with the number of replies in flight: counted, not timed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import anyio
import pytest
from scripted import HEAD, LAST_CHUNK, Script, Step, chunk, memory_site

from gprochat_anyio import Client

FEW, MANY = 200, 2000
TEXT = "one" * 5


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often functions are called: those of the library, and all, in Python or in C."""
    counts: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and "gprochat_anyio" in frame.f_code.co_filename:
            counts["library"] += 1
        elif event in ("call", "c_call"):
            counts["others"] += 1

    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(None)


async def work_for(
    number: int, way: str, monkeypatch: pytest.MonkeyPatch, max_connections: int | None
) -> Counter[str]:
    """The calls for so many replies at once, each in five texts."""
    go, finished = anyio.Event(), 0
    waits: list[Step] = [] if max_connections else [go.wait]
    script: Script = (HEAD + chunk("one"), *waits, *[chunk("one")] * 4, LAST_CHUNK)
    async with memory_site(monkeypatch, script) as site:
        async with Client(site.url, max_connections=max_connections) as client:
            await client.ask("hello") if max_connections else None  # what is cached on first use

            async def ask() -> None:
                nonlocal finished
                if way == "ask":
                    text = (await client.ask("hello")).text
                else:
                    async with client.stream("hello") as chunks:
                        text = await chunks.read()
                assert text == TEXT
                finished += 1

            with counted() as counts:
                async with anyio.create_task_group() as tasks:
                    for _ in range(number):
                        tasks.start_soon(ask)
                    if not max_connections:
                        await anyio.wait_all_tasks_blocked()
                        assert site.open == number  # all of them in flight
                        go.set()
        assert finished == number
        assert not max_connections or site.connections <= max_connections + 1
    return counts


@pytest.mark.parametrize(
    ("way", "max_connections"),
    [("stream", None), ("ask", 100)],
    ids=["in flight", "waiting for slots"],
)
async def test_calls_for_a_reply(
    monkeypatch: pytest.MonkeyPatch, way: str, max_connections: int | None
) -> None:
    few = await work_for(FEW, way, monkeypatch, max_connections)
    many = await work_for(MANY, way, monkeypatch, max_connections)
    for whose in ("library", "others"):
        assert 0 < many[whose] / MANY <= 1.3 * few[whose] / FEW, whose
