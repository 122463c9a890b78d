"""A short response, read as a whole: the answer to a password check."""

from __future__ import annotations

from gprochat_anyio._errors import SiteError
from gprochat_anyio._wire.error_responses import check_head, read_error

from .deadlines import Deadlines
from .failed_response import fields_of
from .response import Head, IncomingResponse


class WholeBody(IncomingResponse):
    """A short response, read as a whole.

    :param limit: the most bytes that are read; the rest is dropped
    """

    __slots__ = ("_limit", "body")

    def __init__(self, deadlines: Deadlines, limit: int) -> None:
        super().__init__(deadlines)
        self.body = b""
        self._limit = limit

    def _check(self, response: Head) -> SiteError | None:
        return check_head(response.status, fields_of(response.headers))

    def _read_error(self, status: int, headers: dict[str, str], body: bytes) -> SiteError:
        return read_error(status, headers, body)

    def _take(self, data: bytes) -> None:
        self.body = (self.body + data)[: self._limit]
        if len(self.body) == self._limit:
            self._finish()

    def _finish(self) -> None:
        self.close()

    def _after_closing(self) -> None:
        """Do nothing: the waiting task takes the body."""
