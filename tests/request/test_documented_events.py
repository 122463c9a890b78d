"""The documented log events, with their levels and fields."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
from support.embedded_site import ROOT
from support.log_events import (
    BEGUN,
    OK,
    ask,
    be_cancelled,
    fail_in_the_block,
    fan_out_of_one,
    fields,
)
from support.loops import virtual

from gprochat_anyio import Client, Fleet, GPROChatError, Retry, Timeouts
from gprochat_anyio.testing import Hang, Refuse, Script, scripted_site

DOCUMENT = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")


def documented() -> dict[str, tuple[str, set[str]]]:
    """Return the documented levels and fields of each event."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([A-Z]+) \|.*\|(.*)\|$", DOCUMENT, re.MULTILINE)
    return {event: (level, set(re.findall(r"`(\w+)`", shown))) for event, level, shown in rows}


@virtual
async def test_the_document_has_every_event_and_field(heard: Any) -> None:
    limited = Refuse(429, "slow")
    ways: list[tuple[Script, Callable[[Client], Awaitable[None]]]] = [
        (BEGUN, fail_in_the_block),
        (BEGUN, be_cancelled),
        (BEGUN, ask),
        (limited, ask),
        (OK, ask),
        (OK, ask),
        (limited, fan_out_of_one),
    ]
    limits = Timeouts(first_chunk=5, idle=5)
    played: list[Script] = []
    async with scripted_site(lambda _: played[-1]) as site:
        async with site.client(timeouts=limits, retry=Retry(attempts=2)) as client:
            for script, way in ways:
                played.append(script)
                with suppress(GPROChatError, LookupError):
                    await way(client)
    hurt = (Refuse(500, "no"), "back")
    async with scripted_site(*hurt) as first, scripted_site("a") as second:
        async with Fleet([first.client(), second.client()], eject_after=1, eject_for=1) as fleet:
            while fleet.states[0].error is None or fleet.states[0].state != "open":
                await fleet.ask("hi")
                await anyio.sleep(1)
    async with scripted_site(Hang()) as first, scripted_site("a") as second:
        async with Fleet([first.client(), second.client()], hedge_after=1) as fleet:
            while not first.requests:
                await fleet.ask("hi")
    seen: dict[str, tuple[str, set[str]]] = {}
    for record in heard.records:
        given = fields(record)
        event = given.pop("event")
        seen.setdefault(event, (record.levelname, set()))[1].update(given)
    table = documented()
    assert seen.keys() == table.keys()
    for event, (level, shown) in seen.items():
        alone = {"rate_limit.pause", "fleet.ejected", "fleet.recovered"}
        common = {"site"} if event in alone else {"site", "request"}
        assert (level, shown - common) == (table[event][0], shown & table[event][1]), event
