"""Events and outcomes of a fan-out."""

from __future__ import annotations

from dataclasses import dataclass, field

from gprochat_anyio._request.reply import Reply
from gprochat_anyio._wire.messages import Prompt


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one reply's text. Its `repr` hides the text."""

    index: int
    """The index of the prompt in the input, from 0."""
    text: str = field(repr=False)
    """The text, which is never empty. Boundaries between chunks have no meaning."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a prompt whose reply is complete."""

    index: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a prompt without a complete reply."""

    index: int
    error: Exception
    """A `GPROChatError`, whose `partial_text` holds the text of an interrupted reply; or the
    exception that the iterable raised instead of this prompt."""


Event = Chunk | Finished | Failed
"""An event of `fan_out`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one prompt: a reply or an error. Its `repr` hides the prompt and the text."""

    index: int
    """The index of the prompt in the input, from 0."""
    prompt: Prompt | None = field(repr=False)
    """The prompt as it was given. `None` if the iterable raised an exception instead."""
    reply: Reply | None = None
    error: Exception | None = None
    """The error, as in `Failed`. `None` if the reply is complete."""

    def unwrap(self) -> Reply:
        """Return the reply.

        :raises Exception: The `error`, if there is no reply.
        """
        if self.error is not None:
            raise self.error
        assert self.reply is not None
        return self.reply
