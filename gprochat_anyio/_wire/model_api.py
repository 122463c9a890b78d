"""The interface of a model that runs in this process: its history, and how its texts can end."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Literal, Self

from .usage import Usage


@dataclass(frozen=True, slots=True, repr=False)
class Turn:
    """One message of a history as it arrived.

    Not a `Message`, which is what a client may send: a site has to live with what it gets.

    :param text: may be blank. Its `repr` never shows it, so that prompts stay out of logs.
    """

    role: Literal["user", "model", "system"]
    """`"system"` is only for models that have a `takes_system` that is True: the first turn."""
    text: str

    def __repr__(self) -> str:
        return f"Turn(role={self.role!r}, {len(self.text)} characters)"


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
    :raises ValueError: If `retry_after` is negative, infinite or NaN.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 500,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        if retry_after is not None and not 0 <= retry_after < inf:
            raise ValueError("retry_after must be a number of seconds, at least 0, or None")
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

    __slots__ = ("reason", "usage")
    reason: Literal["stop", "length"]
    usage: Usage | None

    def __new__(cls, reason: Literal["stop", "length"], usage: Usage | None = None) -> Self:
        """Return the end of a reply.

        :param reason: `"length"` if the reply is cut off at a limit of tokens
        :param usage: the tokens that the reply took, if they are known
        """
        self = super().__new__(cls)
        self.reason = reason
        self.usage = usage
        return self


def spoken(turns: tuple[Turn, ...]) -> Iterator[Turn]:
    """Return the turns as models want them: no blank ones, neighbours of one role joined.

    :raises ModelError: If the user's last text is blank.
    """
    if not turns[-1].text.strip():
        raise ModelError("The question is blank.", status=400)
    said = (turn for turn in turns if turn.text.strip())
    for _, run in groupby(said, key=lambda turn: turn.role):
        first, *rest = run
        yield Turn(first.role, "\n\n".join([first.text, *(turn.text for turn in rest)]))
