"""Types of the testing kit. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, assert_type

from gprochat_anyio import Client, Fleet
from gprochat_anyio.testing import (
    Cancelling,
    Drop,
    Fail,
    Hang,
    Hold,
    Injection,
    MemorySite,
    NetworkForbiddenError,
    Pause,
    Raw,
    Refuse,
    Reply,
    Request,
    Say,
    Script,
    ScriptedSite,
    Step,
    Stop,
    Transcript,
    Turn,
    allow_network,
    at_every_checkpoint,
    cancelled,
    forbid_network,
    injections,
    live_site,
    no_leaks,
    record,
    replay,
    scripted_site,
)

STEPS: list[Step] = [Say("Hi"), Pause(1), Hang(), Drop(), Refuse(429), Fail(), Raw(b""), Stop()]


def endless(request: Request) -> Script:
    assert_type(request.messages, tuple[Turn, ...])
    while True:
        yield Say(request.prompt)


def numbers(request: Request) -> Iterator[int]:
    yield request.number


async def sites() -> None:
    replies: list[Reply] = ["Hi", STEPS, endless]
    async with scripted_site(*replies, password="x") as site:
        assert_type(site, MemorySite)
        scripted: ScriptedSite = site
        assert_type(scripted.url, str)
        assert_type(site.requests, list[Request])
        assert_type(site.client(), Client)
        assert_type(site.openai_client(), Client)
        assert_type(site.gemini_client(), Client)
        await site.until(lambda: not site.open_connections)
    async with live_site("Hi") as live:
        assert_type(live, ScriptedSite)
    scripted_site(numbers)  # type: ignore[arg-type]


async def recordings(client: Client, folder: Path) -> None:
    async with record(client, folder):
        await client.ask("Hi")
    assert_type(replay(folder), MemorySite)


def transcripts(folder: Path) -> None:
    transcript = Transcript.load(folder / "a.json")
    assert_type(transcript, Transcript)
    assert_type(transcript.name, str)


async def hold() -> bool:
    return True


async def cancellations(client: Client, fleet: Fleet) -> None:
    async def operation() -> None:
        await client.ask("Hi")

    last: Cancelling | None = None
    for cancel in at_every_checkpoint(twice=True):
        async with no_leaks(client):
            assert_type(await cancel(operation), Literal["cancelled", "ended", "not reached"])
        last = cancel
    del last
    assert_type(injections(), list[tuple[Literal["before", "after"], bool]])
    end = await cancelled(Injection(1, "before"), operation)
    assert_type(end, Literal["cancelled", "ended", "not reached"])
    async with no_leaks(fleet):  # type: ignore[arg-type]
        pass


def network() -> None:
    with forbid_network(), allow_network():
        pass
    error: type[RuntimeError] = NetworkForbiddenError
    held: list[Hold] = [hold]
    scripted_site([Say("Hi"), held[0]])
    del error
