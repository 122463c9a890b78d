"""The log events of requests, and requests with known ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from gprochat_anyio import Client, fan_out
from gprochat_anyio.testing import Drop, Hang, Raw, Say

from .scripted import reply

LOGGER = "gprochat_anyio"
PREFIX = "gprochat_"


def fields(record: logging.LogRecord) -> dict[str, Any]:
    given = vars(record).items()
    return {key.removeprefix(PREFIX): value for key, value in given if key.startswith(PREFIX)}


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [fields(record) for record in caplog.records if record.name == LOGGER]


def names(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [event["event"] for event in told(caplog)]


@contextmanager
def failing_at(event: str) -> Iterator[None]:
    """Raise `LookupError("broken")` from the log at each such event."""

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if vars(record).get(f"{PREFIX}event") == event:
                raise LookupError("broken")
            return True

    broken, logger = Broken(), logging.getLogger(LOGGER)
    logger.addFilter(broken)
    try:
        yield
    finally:
        logger.removeFilter(broken)


async def leave(client: Client) -> None:
    async with client.stream("Hi") as chunks:
        await chunks.receive()


async def fail_in_the_block(client: Client) -> None:
    async with client.stream("Hi") as chunks:
        await chunks.receive()
        raise LookupError


async def be_cancelled(client: Client) -> None:
    with anyio.move_on_after(1):
        await client.ask("Hi")


async def ask(client: Client) -> None:
    await client.ask("Hi")


NOTHING = [Say(""), Hang()]
BEGUN = [Say("some"), Hang()]
BROKEN = [Say("some"), Drop()]
OK = Raw(reply("ok"))


async def fan_out_of_one(client: Client) -> None:
    async with fan_out(client, ["Hi"]) as events:
        async for _ in events:
            pass
