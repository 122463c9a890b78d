"""Classification of failed requests: endpoint, rate limit, key, prompt or time."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from gprochat_anyio._errors import (
    AuthenticationError,
    EmptyReplyError,
    GPROChatError,
    InvalidPromptError,
    RateLimitError,
    RequestTimeoutError,
    SiteError,
    UnexpectedResponseError,
)

_OPENING: Final = ("connect", "first_chunk")
_ABOUT_THE_ENDPOINT: Final = frozenset({402, 403, 404, 405, 408, 409, 410, 421, 423, 425})
"""Statuses from 400 to 499 that do not depend on the prompt, but on an address, a permission, an
account or the time. Another endpoint may respond with success."""

_REFUSED_CONTENT: Final = frozenset({"content_filter", "content_policy_violation"})


class Fault(Enum):
    """The cause of a failed request."""

    ENDPOINT = auto()
    """Another endpoint may succeed. Consecutive failures eject this one."""
    KEY = auto()
    """Another endpoint may succeed. This one is ejected immediately."""
    RATE_LIMIT = auto()
    """Another endpoint may succeed. This one is paused."""
    PROMPT = auto()
    """Every endpoint would refuse the prompt."""
    TIME = auto()
    """No time is left: `total` has passed, or `idle` within a reply."""


def fault_of(error: GPROChatError) -> Fault:
    """Return the cause of a failed request."""
    match error:
        case RequestTimeoutError():
            return Fault.ENDPOINT if error.phase in _OPENING else Fault.TIME
        case AuthenticationError():
            return Fault.KEY
        case RateLimitError():
            return Fault.RATE_LIMIT
        case InvalidPromptError() | EmptyReplyError():
            return Fault.PROMPT
        case SiteError() if not isinstance(error, UnexpectedResponseError):
            return Fault.PROMPT if _is_about_the_prompt(error) else Fault.ENDPOINT
        case _:
            return Fault.ENDPOINT


def _is_about_the_prompt(error: SiteError) -> bool:
    if error.code in _REFUSED_CONTENT:
        return True
    return 400 <= error.status < 500 and error.status not in _ABOUT_THE_ENDPOINT
