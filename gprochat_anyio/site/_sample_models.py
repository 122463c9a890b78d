"""Sample models, which use no network."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from anyio import sleep

from gprochat_anyio._wire.model_api import Turn


async def offline_model(turns: tuple[Turn, ...], *, delay: float = 0.02) -> AsyncIterator[str]:
    """Introduce itself and repeat the user's text, word by word. A blank text gets an empty reply.

    It uses no network and no language model. The default delay lets a person see the streaming; for
    tests, use `functools.partial(offline_model, delay=0)`.

    :param delay: The time between two words, in seconds.
    """
    said = turns[-1].text.strip()
    if not said:
        return
    reply = (
        f"This is the embedded site of gprochat_anyio; it runs no language model. You said: {said}"
    )
    first, *rest = re.findall(r"\s*\S+", reply)
    yield first
    for word in rest:
        await sleep(delay)
        yield word


async def echo_model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    """Repeat the user's text, word by word."""
    for word in re.findall(r"\s*\S+\s*", turns[-1].text):
        yield word
