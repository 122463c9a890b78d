"""Error messages on stderr, and exit statuses."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import IO, Any, Final, NoReturn

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

from ._output import Output, PipeClosedError, visible, wrapped

FAILED: Final = 1
USAGE: Final = 2

STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (InvalidPromptError, USAGE),
    (ValueError, USAGE),  # an invalid setting of the client
    (SiteConnectionError, 3),
    (RequestTimeoutError, 4),
    (AuthenticationError, 5),
    (RateLimitError, 6),
    (UnexpectedResponseError, 8),
    (SiteError, 7),
    (ReplyInterruptedError, 9),
    (EmptyReplyError, 10),
)
"""The exit statuses of errors. The first matching class applies."""

EXIT_STATUSES: Final = """\
Exit status: 0 complete reply; 1 other failure; 2 usage, setting or prompt;
3 connection; 4 timeout; 5 secret key or password; 6 rate limit; 7 site
error; 8 not a GPROChat site; 9 reply broke off; 10 empty reply; 130 Ctrl-C."""


_TIMEOUT: Final = re.compile(r"\bTimeouts\.(connect|first_chunk|idle|total)\b")


class ReadableUsageError(click.UsageError):
    """Usage error whose message is wrapped between words, below a hint at the command's help."""

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002 - always on stderr
        assert self.ctx is not None
        click.echo(self.ctx.get_usage(), err=True)
        click.echo(f"Try '{self.ctx.command_path} --help' for help.\n", err=True)
        message = " ".join(self.format_message().split())
        click.echo(wrapped(f"Error: {message}", sys.stderr), err=True)


def print_and_exit(ctx: click.Context, text: str) -> NoReturn:
    """Write a line to stdout, and end the command."""
    status = 0
    try:
        Output().write(f"{text}\n")
    except PipeClosedError:
        pass
    except OSError as error:
        say(error.strerror or str(error))
        status = FAILED
    ctx.exit(status)


def exit_status(error: Exception) -> int:
    """Return the exit status of a failure."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), FAILED)


def with_options(message: str) -> str:
    """Return an error's message, which names a timeout's option instead of its attribute."""
    return _TIMEOUT.sub(lambda found: f"--timeout-{found[1].replace('_', '-')}", message)


def say(text: str) -> None:
    """Write a line to stderr, unless it is closed. In a terminal, the line is wrapped."""
    line = " ".join(visible(text).split())
    with suppress(OSError):
        click.echo(wrapped(f"gprochat: {line}", sys.stderr), err=True)
