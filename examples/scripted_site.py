"""Tests of a chat program, with a scripted site in memory, virtual time and leak checks."""

import trio
from trio.testing import MockClock

from gprochat_anyio import Client, ReplyInterruptedError
from gprochat_anyio.testing import (
    Drop,
    Pause,
    Say,
    at_every_checkpoint,
    forbid_network,
    no_leaks,
    scripted_site,
)


async def summary(client: Client, text: str) -> str:
    """Return a summary of a text. This is the program to test."""
    try:
        reply = await client.ask(f"Summarise: {text}")
    except ReplyInterruptedError as error:
        return f"{error.partial_text} [cut off]"
    return reply.text


async def test_a_slow_site() -> None:
    async with scripted_site([Say("Short"), Pause(20), Say(" and good.")]) as site:
        async with site.client() as client:
            assert await summary(client, "a book") == "Short and good."
        assert site.requests[0].prompt == "Summarise: a book"


async def test_a_site_that_breaks_off() -> None:
    async with scripted_site([Say("Short"), Drop()]) as site, site.client() as client:
        assert await summary(client, "a book") == "Short [cut off]"


async def test_cancelled_anywhere_it_leaves_nothing_behind() -> None:
    async with scripted_site([Say("Short"), Pause(20)]) as site, site.client() as client:
        for cancel in at_every_checkpoint():
            async with no_leaks(client):
                await cancel(lambda: summary(client, "a book"))
            assert await summary(client, "a book") == "Short", cancel


with forbid_network():
    for test in (
        test_a_slow_site,
        test_a_site_that_breaks_off,
        test_cancelled_anywhere_it_leaves_nothing_behind,
    ):
        trio.run(test, clock=MockClock(autojump_threshold=0))  # virtual time
        print(test.__name__, "passed")
