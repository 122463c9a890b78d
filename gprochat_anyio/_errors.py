"""What can go wrong, by what the caller would do about it.

::

    GPROChatError
    ├── InvalidPromptError       the prompt can not be sent as it is (also a ValueError)
    ├── SiteConnectionError      no connection to the site, so no answer
    ├── RequestTimeoutError      one of the four clocks ran out (also a TimeoutError)
    ├── SiteError                the site answered, but not with a reply
    │   ├── AuthenticationError      wrong secret key or password
    │   ├── RateLimitError           too many requests; `retry_after` may say how long to wait
    │   └── UnexpectedResponseError  something other than a GPROChat site answered
    ├── ReplyInterruptedError    the reply broke off
    └── EmptyReplyError          the reply is complete and holds no text

Every class is picklable, and none of them ever holds a secret key, a password or a prompt.
"""

from __future__ import annotations

from typing import Literal

Phase = Literal["connect", "first_chunk", "idle", "total"]
"""The clocks of a request, by the name of their field in `Timeouts`."""


class GPROChatError(Exception):
    """Base of every error that the library raises on purpose."""


class InsecureSiteWarning(UserWarning):
    """A password goes to its site unencrypted, over a network that others may listen on."""


class InvalidPromptError(GPROChatError, ValueError):
    """The prompt is not one that a site would answer. Nothing was sent."""


class SiteConnectionError(GPROChatError):
    """No connection to the site could be made, or it closed before it answered; also if a proxy
    refused, or asks for credentials."""

    stale: bool = False
    """True for a kept-alive connection that the site had closed in the meantime."""
    retryable: bool = True
    """False if another attempt with the same settings must fail as well: a proxy that asks for
    credentials, for example."""


class RequestTimeoutError(GPROChatError, TimeoutError):
    """One of the request's clocks ran out; the connection is closed."""

    def __init__(
        self,
        message: str,
        *,
        phase: Phase = "total",
        limit: float = 0.0,
        elapsed: float = 0.0,
        partial_text: str = "",
    ) -> None:
        super().__init__(message)
        self.phase: Phase = phase
        """Which clock: the name of the field of `Timeouts`."""
        self.limit: float = limit
        """The limit that was passed, in seconds."""
        self.elapsed: float = elapsed
        """Seconds on that clock when it ran out."""
        self.partial_text: str = partial_text
        """The text received before."""


class SiteError(GPROChatError):
    """The site answered with an error instead of a reply."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str | None = None,
        site_message: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status: int = status
        """The HTTP status."""
        self.code: str | None = code
        """`error.code` of the answer's JSON, if it had one."""
        self.site_message: str | None = site_message
        """`error.message` of the answer's JSON, if it had one."""
        self.retry_after: float | None = retry_after
        """Seconds that the answer's `Retry-After` asks to wait, if it had one."""
        self.partial_text: str = ""
        """The text received before: an API may tell of an error in the middle of a reply."""


class AuthenticationError(SiteError):
    """The site refused the signature (secret key) or the password."""


class RateLimitError(SiteError):
    """The site, or the model behind it, asks for fewer requests."""


class UnexpectedResponseError(SiteError):
    """The answer is not one of a GPROChat site: HTML, a redirect, another content type, a
    compressed body, or a body whose end could not be told from a broken connection."""


class ReplyInterruptedError(GPROChatError):
    """The reply broke off before its end; the connection is closed."""

    def __init__(self, message: str, *, partial_text: str = "") -> None:
        super().__init__(message)
        self.partial_text: str = partial_text
        """The text received before."""


class EmptyReplyError(GPROChatError):
    """The site answered 200 and ended the reply without any text."""
