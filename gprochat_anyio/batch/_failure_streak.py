"""Classification of failures: the prompt's, or the site's."""

from __future__ import annotations

from typing import Final

from gprochat_anyio import GPROChatError, RequestTimeoutError, SiteConnectionError
from gprochat_anyio._fleet.faults import Fault, fault_of

_REFUSED_UNREAD: Final = {Fault.KEY, Fault.RATE_LIMIT}


class FailureStreak:
    """Counter of consecutive failures of the site.

    :param most: Number of failures that ends the run. `None` for no limit.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.length = 0

    def add(self, error: GPROChatError) -> None:
        """Count a failure of the site.

        A refused prompt or an interrupted reply ends the streak, as it shows that the site works.
        """
        if getattr(error, "partial_text", "") or fault_of(error) is Fault.PROMPT:
            self.end()
        else:
            self.length += 1

    def end(self) -> None:
        """End the streak: the site works."""
        self.length = 0

    @property
    def is_too_long(self) -> bool:
        """True once the streak ends the run."""
        return self.most is not None and self.length >= self.most


def was_never_asked(error: GPROChatError) -> bool:
    """Return True if the request failed before the site read the prompt."""
    if isinstance(error, RequestTimeoutError):
        return error.phase == "connect"
    return isinstance(error, SiteConnectionError) or fault_of(error) in _REFUSED_UNREAD
