"""The work for a reply does not depend on the number of concurrent replies: counted, not timed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked

from gprochat_anyio.testing import Hold, Say, scripted_site

pytestmark = pytest.mark.slow

TEXT = "one" * 5


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count function calls: the library's own, and all, whether in Python or in C."""
    counts: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        place = frame.f_code.co_filename  # excludes the site's own work
        if event == "call" and "gprochat_anyio" in place and "testing" not in place:
            counts["library"] += 1
        elif event in ("call", "c_call"):
            counts["others"] += 1

    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(None)


async def work_for(number: int, way: str, max_connections: int | None) -> Counter[str]:
    """Return the calls for a number of concurrent replies of five texts each."""
    go, finished = anyio.Event(), 0
    waits: list[Hold] = [] if max_connections else [go.wait]
    async with scripted_site([Say("one"), *waits, *[Say("one")] * 4]) as site:
        async with site.client(max_connections=max_connections) as client:
            await client.ask("hello") if max_connections else None  # fills caches

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
                        await all_tasks_blocked()
                        assert site.open_connections == number  # all are in flight
                        go.set()
        assert finished == number
        assert not max_connections or site.connections <= max_connections + 1
    return counts


@pytest.mark.parametrize(
    ("way", "max_connections"),
    [("stream", None), ("ask", 100)],
    ids=["in flight", "waiting for slots"],
)
async def test_calls_for_a_reply(way: str, max_connections: int | None, many: int) -> None:
    many //= 2  # each call is counted, which takes its time
    few = many // 10
    for_few = await work_for(few, way, max_connections)
    for_many = await work_for(many, way, max_connections)
    for whose in ("library", "others"):
        assert 0 < for_many[whose] / many <= 1.3 * for_few[whose] / few, whose
