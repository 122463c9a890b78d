"""A request that is ready, and the protocol of what opens it: one endpoint, or several."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gprochat_anyio._errors import InvalidPromptError
from gprochat_anyio._settings import Retry, Timeouts, check
from gprochat_anyio._wire.messages import Message, Prompt, checked, history

from .incoming import IncomingReply
from .limiter import Limiter
from .sinks import TextSink


class PreparedRequest(NamedTuple):
    """A history that can be sent as it is, to any endpoint."""

    messages: tuple[Message, ...]
    timeouts: Timeouts | None = None
    """Override the endpoint's, field by field."""
    path: str | None = None
    """Below the site's own, in the place of its wire's."""
    retry: Retry | None = None
    """In the place of the endpoint's."""
    began: float | None = None
    """The time at which `total` began, by the event loop's clock. None: when it is opened."""
    limiter: Limiter | None = None
    """Decides when the request starts. No deadline runs before that."""
    may_be_held: bool = False
    """True if the consumer of its text may leave it waiting, and send other requests meanwhile."""

    @classmethod
    def of(cls, prompt: Prompt, timeouts: Timeouts | None) -> PreparedRequest | InvalidPromptError:
        """Return the request for a prompt, or why there is none, to raise where nothing holds it.

        :raises ValueError: If `timeouts` is invalid.
        """
        check("timeouts", timeouts, Timeouts, type(None))
        messages = checked(history, prompt)
        return messages if isinstance(messages, InvalidPromptError) else cls(messages, timeouts)


class Opener(Protocol):
    """Opens requests, for clients, fan-outs, races and conversations."""

    @property
    def timeouts(self) -> Timeouts:
        """The limits of every request."""
        ...

    @property
    def retry(self) -> Retry:
        """The failures that are tried again before the first text."""
        ...

    async def open(
        self, request: PreparedRequest, sink: TextSink, *, whole: bool = False
    ) -> IncomingReply:
        """Return the reply once its first text has arrived; `whole`, once it has ended.

        :param sink: takes the text
        :raises GPROChatError: If there is no first text.
        """
        ...

    def check_usable(self) -> float:
        """Return the time, by the event loop's clock.

        :raises RuntimeError: If it is closed, or belongs to another event loop or process.
        """
        ...

    def check_room(self) -> None:
        """Make sure that there is room for a request beside those that may be held.

        :raises ValueError: If there is not; the message says what to change.
        """
        ...

    async def aclose(self) -> None:
        """Close the idle connections. Those in use are closed as their replies end."""
        ...
