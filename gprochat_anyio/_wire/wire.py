"""The interface of a wire: encode one API's requests, and decode its responses. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gprochat_anyio._errors import InvalidPromptError, SiteError

from .messages import Message
from .usage import Usage


class ReplyDecoder(Protocol):
    """Incremental decoder of the body of one reply."""

    @property
    def failure(self) -> str | SiteError | None:
        """The reason why the reply failed, or the error that it reports. Anything fed later is
        dropped."""
        ...

    @property
    def finish_reason(self) -> str | None:
        """The finish reason: `"stop"`, `"length"`, or another of the API's names."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The token counts, if the API reports them."""
        ...

    @property
    def is_whole(self) -> bool:
        """True once all text has arrived, even if the connection breaks afterwards."""
        ...

    def feed(self, data: bytes) -> str:
        """Return the text that these bytes complete. It may be empty."""
        ...

    def finish(self) -> str:
        """Return the rest of the text of a complete body, or set `failure`."""
        ...

    def cut(self) -> str:
        """Return the rest of the text of a body that was cut off, if it is certain."""
        ...


class Wire(Protocol):
    """The client's end of one API."""

    @property
    def provider(self) -> str:
        """The API's name, as OpenTelemetry's `gen_ai.provider.name`."""
        ...

    @property
    def path(self) -> str:
        """The path of requests below the API's address."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The API's own header fields of every request."""
        ...

    def encode(self, messages: Sequence[Message]) -> Any:
        """Encode the body of a request: bytes, or a model's history.

        :param messages: The history, as `messages.history` returns it.
        """
        ...

    def with_fields(self, fields: Mapping[str, Any]) -> Wire | InvalidPromptError:
        """Return a wire that adds fields to the body of its requests, or the error."""
        ...

    def decoder(self, max_size: int | None) -> ReplyDecoder:
        """Return a new decoder for one reply.

        :param max_size: Maximum size of the body in bytes, `None` for no limit.
        """
        ...

    def check_reply_head(
        self, status: int, headers: Mapping[str, str], *, framed: bool
    ) -> SiteError | None:
        """Return the error that a response's head indicates, or `None`.

        For a status other than 200, `None` means that the body describes the error: pass it to
        `read_error`. All wires of a class find an error in the same heads.

        :param headers: The header fields by lower-case name.
        :param framed: True if the body has a length or chunked encoding.
        """
        ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error for a response with a status other than 200.

        :param headers: The header fields by lower-case name.
        """
        ...
