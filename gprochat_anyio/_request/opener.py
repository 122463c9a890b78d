"""Prepared requests, and the interface of their openers: one endpoint, or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from gprochat_anyio._errors import InvalidPromptError
from gprochat_anyio._settings import Retry, Timeouts, check
from gprochat_anyio._wire.messages import Message, Prompt, checked, history

from .incoming import IncomingReply
from .limiter import Limiter
from .sinks import TextSink


class PreparedRequest(NamedTuple):
    """A validated history, ready to be sent to any endpoint."""

    messages: tuple[Message, ...]
    timeouts: Timeouts | None = None
    """Time limits that override the endpoint's."""
    path: str | None = None
    """A path below the API's address, which replaces the wire's."""
    retry: Retry | None = None
    """Replaces the endpoint's policy."""
    began: float | None = None
    """The time at which `total` started, by the event loop's clock. `None` for the opening."""
    limiter: Limiter | None = None
    """A limiter for the request's start. No deadline applies before that."""
    may_be_held: bool = False
    """True if the consumer may block the reply while it sends other requests."""
    fields: Mapping[str, Any] | None = None
    """Additional fields of the body, besides the endpoint's."""

    @classmethod
    def of(cls, prompt: Prompt, timeouts: Timeouts | None) -> PreparedRequest | InvalidPromptError:
        """Return the request for a prompt, or the error for the caller to raise; see `checked`.

        :raises ValueError: If `timeouts` is invalid.
        """
        check("timeouts", timeouts, Timeouts, type(None))
        messages = checked(history, prompt)
        return messages if isinstance(messages, InvalidPromptError) else cls(messages, timeouts)


class Opener(Protocol):
    """Opener of requests, for clients, fan-outs, races and conversations."""

    @property
    def timeouts(self) -> Timeouts:
        """The default time limits of a request."""
        ...

    @property
    def retry(self) -> Retry:
        """The policy for retries before the first text."""
        ...

    async def open(
        self, request: PreparedRequest, sink: TextSink, *, whole: bool = False
    ) -> IncomingReply:
        """Open a request, and return the reply once its first text has arrived.

        :param sink: The sink that receives the text.
        :param whole: Return once the reply has ended instead.
        :raises GPROChatError: If the request fails before the first text.
        """
        ...

    def check_usable(self) -> float:
        """Check that the opener can be used here, and return the event loop's time.

        :raises RuntimeError: If it is closed, or belongs to another event loop or process.
        """
        ...

    def check_room(self) -> None:
        """Check that the limits leave room for a request beside those that a consumer may block.

        :raises ValueError: If they do not. The message says what to change.
        """
        ...

    async def aclose(self) -> None:
        """Close the idle connections. Connections in use are closed when their replies end."""
        ...
