"""Models for trying a site out, which take no network."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from anyio import sleep

from gprochat_anyio._wire.model_api import Turn


async def offline_model(turns: tuple[Turn, ...], *, delay: float = 0.02) -> AsyncIterator[str]:
    """Say what this is, and repeat what the user said, word by word; a blank text gets no answer.

    Takes no network and no language model: `functools.partial(offline_model, delay=0)` is made
    for tests, the default lets a person see the streaming.

    :param delay: seconds between two words
    """
    said = turns[-1].text.strip()
    if not said:
        return
    answer = (
        f"This is the embedded site of gprochat_anyio; it runs no language model. You said: {said}"
    )
    first, *rest = re.findall(r"\s*\S+", answer)
    yield first
    for word in rest:
        await sleep(delay)
        yield word


async def echo_model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    """Repeat what the user said, word by word."""
    for word in re.findall(r"\s*\S+\s*", turns[-1].text):
        yield word
