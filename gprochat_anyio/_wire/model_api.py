"""The interface of models in this process: their histories, texts, errors and finish reasons."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Literal, Self

from .usage import Usage


@dataclass(frozen=True, slots=True, repr=False)
class Turn:
    """One message of a history, as a model receives it. Its `repr` hides the text.

    A `Message` is validated for sending. A site must accept more than that.

    :param text: The text, which may be blank.
    """

    role: Literal["user", "model", "system"]
    """The author. `"system"` is passed only to models whose `takes_system` is True, as the first
    turn."""
    text: str

    def __repr__(self) -> str:
        return f"Turn(role={self.role!r}, {len(self.text)} characters)"


Model = Callable[[tuple[Turn, ...]], AsyncIterable[str]]
"""A callable that takes a history and returns an async iterable of texts.

The history begins with the oldest turn and ends with the user's. Each text is sent to the client
immediately, as one HTTP chunk. An empty text sends no chunk, but starts the reply: after that, the
client sees a failure as an interrupted reply instead of an error response. If the client
disconnects, the iteration is cancelled and an async generator is closed, which may take one second.
OpenAI's clients see the callable's `name`, if it has one.
"""


class ModelError(Exception):
    """Raised by a model to refuse a prompt, or to give up a reply.

    Before the first text, the client receives the message as an error with status 500. After it,
    the client only learns that the reply was interrupted. Clients of the OpenAI endpoint receive
    the message in both cases.

    :param status: The HTTP status for clients of the OpenAI endpoint. 429 is a rate limit, which
        other clients recognize by the message.
    :param code: The error code for clients of the OpenAI endpoint. After the first text,
        `"content_filter"` is a finish reason instead of a failure.
    :param retry_after: The time to wait before another attempt, in seconds.
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
    """A finish reason, as an empty text that a model may yield last.

    Clients of the OpenAI endpoint receive it. The GPROChat wire cannot express it.
    """

    __slots__ = ("reason", "usage")
    reason: Literal["stop", "length"]
    usage: Usage | None

    def __new__(cls, reason: Literal["stop", "length"], usage: Usage | None = None) -> Self:
        """Create the end of a reply.

        :param reason: `"length"` if a token limit cut the reply off, `"stop"` otherwise.
        :param usage: The token counts, if they are known.
        """
        self = super().__new__(cls)
        self.reason = reason
        self.usage = usage
        return self


def spoken(turns: tuple[Turn, ...]) -> Iterator[Turn]:
    """Return the turns without blank ones, and with consecutive turns of one role joined.

    :raises ModelError: If the user's last text is blank.
    """
    if not turns[-1].text.strip():
        raise ModelError("The question is blank.", status=400)
    said = (turn for turn in turns if turn.text.strip())
    for _, run in groupby(said, key=lambda turn: turn.role):
        first, *rest = run
        yield Turn(first.role, "\n\n".join([first.text, *(turn.text for turn in rest)]))
