"""A response that is read as a whole: to a password check, or a list of models."""

from __future__ import annotations

from typing import Protocol

from gprochat_anyio._errors import SiteError

from .deadlines import Deadlines
from .failed_response import fields_of
from .response import Head, IncomingResponse


class ErrorReader(Protocol):
    """The part of a wire that reads errors."""

    def check_head(self, status: int, headers: dict[str, str]) -> SiteError | None:
        """Return the error that the head of any response shows, if it shows one."""
        ...

    def read_error(self, status: int, headers: dict[str, str], body: bytes) -> SiteError:
        """Return the error that a response with a status other than 200 stands for."""
        ...


class WholeBody(IncomingResponse):
    """A response that is read as a whole.

    :param errors: reads its errors
    :param limit: the most bytes that are read; the rest is dropped
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
        """Do nothing: the waiting task takes the body."""
