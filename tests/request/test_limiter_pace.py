"""A fan-out adapts to its site's limit, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from support.loops import virtual

from gprochat_anyio import gather
from gprochat_anyio.testing import Pause, Refuse, Request, Say, Script, scripted_site

pytestmark = [
    virtual,
    pytest.mark.slow,
]

SECONDS = 0.1
"""Duration of a reply."""


class Narrow:
    """A site that accepts a number of concurrent requests.

    :param text_first: False to send the text together with the end of the reply.
    """

    def __init__(
        self, at_once: int, retry_after: float | None = None, *, text_first: bool = True
    ) -> None:
        self.at_once = at_once
        self.retry_after = retry_after
        self.text_first = text_first
        self.running = self.most = self.accepted = self.refused = 0
        self.after: Callable[[], None] = lambda: None

    def __call__(self, request: Request) -> Script:
        if self.running >= self.at_once:
            self.refused += 1
            return Refuse(429, "slow down", self.retry_after)
        self.running += 1
        self.most = max(self.most, self.running)
        if self.text_first:
            return Say(request.prompt), Pause(SECONDS), self.done
        return Pause(SECONDS), self.done, Say(request.prompt)

    async def done(self) -> None:
        self.running -= 1
        self.accepted += 1
        self.after()


async def seconds_for(narrow: Narrow, prompts: int, at_once: int) -> float:
    async with scripted_site(narrow) as site, site.client() as client:
        began = anyio.current_time()
        outcomes = await gather(client, map(str, range(prompts)), max_at_once=at_once)
        assert [outcome.unwrap().text for outcome in outcomes] == list(map(str, range(prompts)))
        return anyio.current_time() - began


@pytest.mark.parametrize(
    ("at_once", "accepts", "text_first"),
    [
        (64, 1, True),
        (16, 4, True),
        (64, 16, True),
        (64, 4, False),
        pytest.param(16, 1, True, marks=pytest.mark.full),
        pytest.param(16, 16, True, marks=pytest.mark.full),
        pytest.param(64, 4, True, marks=pytest.mark.full),
        pytest.param(16, 4, False, marks=pytest.mark.full),
    ],
)
async def test_a_site_that_accepts_few_concurrent_requests(
    at_once: int, accepts: int, *, text_first: bool
) -> None:
    narrow = Narrow(accepts, text_first=text_first)
    ideal = 1000 * SECONDS / accepts
    took = await seconds_for(narrow, 1000, at_once)
    assert took <= 1.25 * ideal
    assert narrow.refused <= 0.1 * (1000 + narrow.refused)


@pytest.mark.parametrize("accepts", [1, 16])
async def test_a_site_that_asks_for_pauses(accepts: int) -> None:
    narrow = Narrow(accepts, retry_after=1)
    ideal = 1000 * SECONDS / accepts
    took = await seconds_for(narrow, 1000, 64)
    assert took <= 3 * ideal


@pytest.mark.parametrize(
    ("before", "then", "retry_after"),
    [
        (4, 16, None),
        (8, 1, 1),
        pytest.param(4, 16, 1, marks=pytest.mark.full),
        pytest.param(8, 1, None, marks=pytest.mark.full),
    ],
)
async def test_a_site_that_changes(before: int, then: int, retry_after: float | None) -> None:
    narrow = Narrow(before, retry_after)
    changed = 0.0

    def change() -> None:
        nonlocal changed
        if narrow.accepted == 500:
            narrow.at_once, narrow.most, changed = then, 0, anyio.current_time()

    narrow.after = change
    await seconds_for(narrow, 1500, 32)
    assert narrow.most == then
    ideal = 1000 * SECONDS / then
    assert anyio.current_time() - changed <= (1.3 if retry_after is None else 3) * ideal
