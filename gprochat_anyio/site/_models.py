"""What answers behind a site."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from anyio import sleep


@dataclass(frozen=True, slots=True, repr=False)
class Turn:
    """One message of a history as it arrived.

    Not a `Message`, which is what a client may send: a site has to live with what it gets.

    :param text: may be blank. Its `repr` never shows it, so that prompts stay out of logs.
    """

    role: Literal["user", "model"]
    text: str

    def __repr__(self) -> str:
        return f"Turn(role={self.role!r}, {len(self.text)} characters)"


Model = Callable[[tuple[Turn, ...]], AsyncIterable[str]]
"""Answers a history, oldest turn first, the last one the user's, with texts.

Each text goes to the client at once, as one HTTP chunk. An empty text makes no chunk, but opens
the reply: from then on the client sees a failure as an interrupted reply and no longer as an
error. The iteration is cancelled when the client leaves, and an async generator is then closed;
it has one second for that.
"""


class ModelError(Exception):
    """Raised by a model to refuse.

    Before its first text the client gets the message, as an error with status 500; after it, the
    client only learns that the reply was interrupted.
    """


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
