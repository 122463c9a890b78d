"""Sites in memory whose clients share a limiter, and the times of their requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from gprochat_anyio import Client, Retry
from gprochat_anyio.testing import (
    Pause,
    Refuse,
    Reply,
    Request,
    Say,
    Script,
    ScriptedSite,
    scripted_site,
)

STEADY = Retry(attempts=3, backoff=0)
"""Without jitter, so that times are exact."""


def numbers(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def lasting(seconds: float) -> Callable[[Request], Script]:
    """Return replies that echo the prompt, and end after a number of seconds."""
    return lambda request: (Pause(seconds), Say(request.prompt))


OPEN = [Say("text"), Pause(5)]


def once_refused(refusal: Refuse, prompt: str = "0") -> Callable[[Request], Script]:
    """Refuse the first request with a prompt. Each reply takes a second."""
    refusals = iter([refusal])

    def answer(request: Request) -> Script:
        refused = next(refusals, None) if request.prompt == prompt else None
        return lasting(1)(request) if refused is None else refused

    return answer


@asynccontextmanager
async def sites(
    *replies: Reply, **settings: Any
) -> AsyncIterator[tuple[Sequence[Client], Sequence[ScriptedSite]]]:
    """Serve each reply by an in-memory site. Yield the clients and the sites."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(scripted_site(reply)) for reply in replies]
        clients = [await stack.enter_async_context(site.client(**settings)) for site in found]
        yield clients, found


def starts(*asked: ScriptedSite) -> list[tuple[float, str]]:
    """Return the time and prompt of each request, in seconds since the first."""
    requests = sorted((r for site in asked for r in site.requests), key=lambda r: r.time)
    return [(round(r.time - requests[0].time, 3), r.prompt) for r in requests]


async def ask_all(client: Client, *prompts: str, **settings: Any) -> None:
    """Send the prompts concurrently, in this order. Raise their exceptions."""
    async with anyio.create_task_group() as tasks:
        for prompt in prompts:
            tasks.start_soon(partial(client.ask, prompt, **settings))
            for _ in range(3):
                await checkpoint()
