"""What answers behind a site."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from itertools import groupby
from typing import Literal, Self

from anyio import sleep

from gprochat_anyio._wire.admission import Turn

Model = Callable[[tuple[Turn, ...]], AsyncIterable[str]]
"""Answers a history, oldest turn first, the last one the user's, with texts.

Each text goes to the client at once, as one HTTP chunk. An empty text makes no chunk, but opens
the reply: from then on the client sees a failure as an interrupted reply and no longer as an
error. The iteration is cancelled when the client leaves, and an async generator is then closed;
it has one second for that. If it has a `name`, OpenAI's clients see it.
"""


class ModelError(Exception):
    """Raised by a model to refuse.

    Before its first text the client gets the message, as an error with status 500; after it, the
    client only learns that the reply was interrupted. Clients of the OpenAI endpoint get the
    message in both cases.

    :param status: the HTTP status for clients of the OpenAI endpoint. 429 is a rate limit; its
        message tells so to the others, too.
    :param code: a name for the reason, for the same; `"content_filter"` after the first text is
        a finish reason there, and no failure
    :param retry_after: seconds after which to ask again
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 500,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        if status == 429 and "[429 " not in message:
            message = f"[429 Too Many Requests] {message}"
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class Finish(str):
    """An empty text that a model may end with, to say why it stopped.

    Clients of the OpenAI endpoint are told; the GPROChat wire has no place for it.
    """

    __slots__ = ("reason",)
    reason: Literal["stop", "length"]

    def __new__(cls, reason: Literal["stop", "length"]) -> Self:
        """`"length"`: the reply is cut off at a limit of tokens."""
        self = super().__new__(cls)
        self.reason = reason
        return self


def spoken(turns: tuple[Turn, ...]) -> Iterator[Turn]:
    """Return the turns as models want them: no blank ones, neighbours of one role joined.

    :raises ModelError: if the user's last text is blank
    """
    if not turns[-1].text.strip():
        raise ModelError("The question is blank.", status=400)
    said = (turn for turn in turns if turn.text.strip())
    for _, run in groupby(said, key=lambda turn: turn.role):
        first, *rest = run
        yield Turn(first.role, "\n\n".join([first.text, *(turn.text for turn in rest)]))


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
