"""What a failure says on stderr, and the exit status it ends with."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

import click

from gprochat_anyio import (
    AuthenticationError,
    EmptyReplyError,
    InvalidPromptError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    SiteError,
    UnexpectedResponseError,
)

from ._output import visible, wrapped

FAILED: Final = 1
USAGE: Final = 2

STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (InvalidPromptError, USAGE),
    (ValueError, USAGE),  # a setting of the client that can not be
    (SiteConnectionError, 3),
    (RequestTimeoutError, 4),
    (AuthenticationError, 5),
    (RateLimitError, 6),
    (UnexpectedResponseError, 8),
    (SiteError, 7),
    (ReplyInterruptedError, 9),
    (EmptyReplyError, 10),
)
"""The first class that fits counts."""

EXIT_STATUSES: Final = """\
Exit status: 0 complete reply; 1 other failure; 2 usage, setting or prompt;
3 connection; 4 timeout; 5 secret key or password; 6 rate limit; 7 error of
the site; 8 no GPROChat site; 9 reply broke off; 10 empty reply; 130 Ctrl-C."""
EPILOG: Final = f"\b\n{EXIT_STATUSES}"


def exit_status(error: Exception) -> int:
    """The exit status of a failure."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), FAILED)


def say(text: str) -> None:
    """Put one line on stderr, if it is still open; in a terminal it may take several."""
    line = " ".join(visible(text).split())
    with suppress(OSError):
        click.echo(wrapped(f"gprochat: {line}", sys.stderr), err=True)
