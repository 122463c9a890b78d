"""Responses whose body is collected, such as a list of models."""

from __future__ import annotations

from typing import Protocol

from gprochat_anyio._errors import SiteError

from .deadlines import Deadlines
from .failed_response import fields_of
from .response import Head, IncomingResponse


class ErrorReader(Protocol):
    """Reader of errors, as part of a wire."""

    def check_head(self, status: int, headers: dict[str, str]) -> SiteError | None:
        """Return the error that the head of any response indicates, or `None`."""
        ...

    def read_error(self, status: int, headers: dict[str, str], body: bytes) -> SiteError:
        """Return the error for a response with a status other than 200."""
        ...


class WholeBody(IncomingResponse):
    """A response whose body is collected.

    :param errors: The reader of its errors.
    :param limit: Maximum number of bytes to collect. The rest is dropped.
    """

    __slots__ = ("_errors", "_limit", "body")

    def __init__(self, deadlines: Deadlines, errors: ErrorReader, limit: int) -> None:
        super().__init__(deadlines)
        self.body = b""
        self._errors = errors
        self._limit = limit

    def _check(self, response: Head) -> SiteError | None:
        return self._errors.check_head(response.status, fields_of(response.headers))

    def _read_error(self, status: int, headers: dict[str, str], body: bytes) -> SiteError:
        return self._errors.read_error(status, headers, body)

    def _take(self, data: bytes) -> None:
        self.body = (self.body + data)[: self._limit]
        if len(self.body) == self._limit:
            self._finish()

    def _finish(self) -> None:
        self.close()

    def _after_closing(self) -> None:
        """Do nothing, because the waiting task takes the body."""
