"""The wire of a model in this process, whose texts need no encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gprochat_anyio._errors import InvalidPromptError, RateLimitError, SiteError

from .messages import Message, folded, refused_fields
from .model_api import Finish, ModelError, Turn
from .usage import Usage


class ModelDecoder:
    """Decoder of one reply of a model, which is fed the model's texts.

    :param max_size: Maximum size of the texts as UTF-8 in bytes, `None` for no limit. A larger
        reply fails after the text within the limit.
    """

    __slots__ = ("_max_size", "_size", "failure", "finish_reason", "usage")

    is_whole = False
    """False, because only the end of the iteration completes the reply."""

    def __init__(self, max_size: int | None) -> None:
        self.failure: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._max_size = max_size
        self._size = 0

    def feed(self, data: Any) -> str:
        """Return the text, or record the finish reason."""
        if isinstance(data, Finish):
            self.finish_reason, self.usage = data.reason, data.usage
            return ""
        text = str(data)
        if self._max_size is not None:
            room = self._max_size - self._size
            self._size += len(text) if text.isascii() else len(text.encode())
            if self._size > self._max_size:
                self.failure = f"it is larger than max_reply_size, {self._max_size} bytes"
                return text.encode()[:room].decode(errors="ignore")
        return text

    def finish(self) -> str:
        """Return nothing: no text is held back."""
        self.finish_reason = self.finish_reason or "stop"
        return ""

    def cut(self) -> str:
        """Return nothing: no text is held back."""
        return ""


class ModelWire:
    """The wire of a model in this process. The body of a request is the model's history."""

    provider = "in_process"
    path = ""
    headers: Mapping[str, str] = {}

    def encode(self, messages: Sequence[Message]) -> Any:
        """Return the history for a model, with the system message folded into the user's first."""
        return tuple(
            Turn("user" if message.wire_role == "user" else "model", message.content)
            for message in folded(messages)
        )

    def with_fields(self, fields: Mapping[str, Any]) -> InvalidPromptError:
        """Return an error, because a model has no additional fields."""
        return refused_fields(fields)

    def decoder(self, max_size: int | None) -> ModelDecoder:
        """Return a new decoder for one reply."""
        return ModelDecoder(max_size)

    def check_reply_head(
        self, status: int, headers: Mapping[str, str], *, framed: bool
    ) -> SiteError | None:
        """Not used, because a model has no responses."""
        raise NotImplementedError  # pragma: no cover - there are no responses to check

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Not used, because a model has no responses."""
        raise NotImplementedError  # pragma: no cover - there are no responses to read


def error_of_model(error: ModelError) -> SiteError:
    """Return the client's exception for a `ModelError`."""
    kind = RateLimitError if error.status == 429 else SiteError
    return kind(
        str(error),
        status=error.status,
        code=error.code,
        site_message=str(error),
        retry_after=error.retry_after,
    )
