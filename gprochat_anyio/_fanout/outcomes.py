"""What becomes of the prompts of a fan-out."""

from __future__ import annotations

from dataclasses import dataclass, field

from gprochat_anyio._request.reply import Reply
from gprochat_anyio._wire.messages import Prompt


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the text of one reply. Its `repr` does not show it."""

    index: int
    """Which prompt it answers: its place in the input, counted from 0."""
    text: str = field(repr=False)
    """Never empty; where it begins and ends means nothing."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A reply is complete. The last event of its index."""

    index: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Failed:
    """A prompt has no complete reply. The last event of its index."""

    index: int
    error: Exception
    """A `GPROChatError`, whose `partial_text` has what came of the reply if it broke off; or
    whatever the iterable of prompts raised in the place of this one."""


Event = Chunk | Finished | Failed
"""What `fan_out` gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one prompt: a reply or an error. Its `repr` shows no prompt and no text."""

    index: int
    """The prompt's place in the input, counted from 0."""
    prompt: Prompt | None = field(repr=False)
    """As it was given; None where the iterable of prompts raised instead."""
    reply: Reply | None = None
    error: Exception | None = None
    """Why there is no complete reply, as in `Failed`; None if there is one."""

    def unwrap(self) -> Reply:
        """The reply.

        :raises Exception: `error`, if there is none
        """
        if self.error is not None:
            raise self.error
        assert self.reply is not None
        return self.reply
