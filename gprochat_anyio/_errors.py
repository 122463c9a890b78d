"""Exceptions of the library, grouped by the caller's next step.

::

    GPROChatError
    ├── InvalidPromptError       the prompt is invalid (also a ValueError)
    ├── SiteConnectionError      no connection to the site, so no response
    ├── RequestTimeoutError      one of the four deadlines passed (also a TimeoutError)
    ├── SiteError                the site responded with something other than a reply
    │   ├── AuthenticationError      wrong secret key or password
    │   ├── RateLimitError           too many requests; `retry_after` may say how long to wait
    │   └── UnexpectedResponseError  the response is not one of the API's
    ├── ReplyInterruptedError    the reply broke off
    └── EmptyReplyError          the reply is complete and has no text

Every exception can be pickled. None contains a secret key, a password or a prompt.
"""

from __future__ import annotations

from typing import Literal

Phase = Literal["connect", "first_chunk", "idle", "total"]
"""The deadlines of a request, named as the fields of `Timeouts`."""


class GPROChatError(Exception):
    """Base class of the library's exceptions."""


class InsecureSiteWarning(UserWarning):
    """A password is sent unencrypted over a network, where others may read it."""


class InvalidPromptError(GPROChatError, ValueError):
    """The prompt is invalid. Nothing was sent."""


class SiteConnectionError(GPROChatError):
    """Connecting to the site failed, or the connection closed before the response.

    A proxy that refuses the connection or asks for credentials raises it too.
    """

    stale: bool = False
    """True if the site closed a kept-alive connection before it was used again."""
    retryable: bool = True
    """False if another attempt with the same settings would fail as well, for example because a
    proxy asks for credentials."""


class RequestTimeoutError(GPROChatError, TimeoutError):
    """One of the request's deadlines passed. The connection is closed."""

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
        """The deadline that passed, named as its field of `Timeouts`."""
        self.limit: float = limit
        """The limit, in seconds."""
        self.elapsed: float = elapsed
        """The time that had passed when the deadline was reported, in seconds."""
        self.partial_text: str = partial_text
        """The text received before."""


class SiteError(GPROChatError):
    """The site responded with an error instead of a reply."""

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
        """The response's HTTP status."""
        self.code: str | None = code
        """The error code in the response's JSON (`error.code`), or `None`."""
        self.site_message: str | None = site_message
        """The error message in the response's JSON (`error.message`), or `None`."""
        self.retry_after: float | None = retry_after
        """The time to wait before another attempt in seconds (`Retry-After`), or `None`."""
        self.partial_text: str = ""
        """The text received before the error. It is empty unless an API reports an error within a
        reply."""


class AuthenticationError(SiteError):
    """The site rejected the secret key's signature, the password or the API key."""


class RateLimitError(SiteError):
    """The site or its model rejected the request because of a rate limit."""


class UnexpectedResponseError(SiteError):
    """The response is not one of the API's: HTML, a redirect, another content type, a compressed
    body, or a body without a recognizable end."""


class ReplyInterruptedError(GPROChatError):
    """The reply ended early. The connection is closed."""

    def __init__(self, message: str, *, partial_text: str = "") -> None:
        super().__init__(message)
        self.partial_text: str = partial_text
        """The text received before."""


class EmptyReplyError(GPROChatError):
    """The site responded with status 200 and a reply without text."""
