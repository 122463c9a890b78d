"""The wire of a model in this process: there are no bytes, so its texts pass as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gprochat_anyio._errors import RateLimitError, SiteError

from .messages import Message, folded
from .model_api import Finish, ModelError, Turn
from .usage import Usage


class ModelDecoder:
    """The decoder of a model's reply, which is fed its texts.

    :param max_size: Maximum size of the texts in bytes of UTF-8, None for no limit. A larger reply
        fails, behind the text of that many bytes.
    """

    __slots__ = ("_max_size", "_size", "failure", "finish_reason", "usage")

    is_whole = False
    """Only the end of the iteration is the end of the reply."""

    def __init__(self, max_size: int | None) -> None:
        self.failure: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._max_size = max_size
        self._size = 0

    def feed(self, data: Any) -> str:
        """Return the text, or take note of why the model has ended."""
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
    """A model in this process. A request's body is the history that it gets."""

    provider = "in_process"
    path = ""
    headers: Mapping[str, str] = {}

    def encode(self, messages: Sequence[Message]) -> Any:
        """Return the history for a model, which has no place for a system text of its own."""
        return tuple(
            Turn("user" if message.wire_role == "user" else "model", message.content)
            for message in folded(messages)
        )

    def decoder(self, max_size: int | None) -> ModelDecoder:
        """Return the decoder of a reply."""
        return ModelDecoder(max_size)

    def check_reply_head(
        self, status: int, headers: Mapping[str, str], *, framed: bool
    ) -> SiteError | None:
        """Return None: a model refuses by raising."""
        raise NotImplementedError  # pragma: no cover - there are no responses to check

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error that a response stands for: a model has none."""
        raise NotImplementedError  # pragma: no cover - there are no responses to read


def error_of_model(error: ModelError) -> SiteError:
    """Return what a model's refusal means to the caller."""
    kind = RateLimitError if error.status == 429 else SiteError
    return kind(
        str(error),
        status=error.status,
        code=error.code,
        site_message=str(error),
        retry_after=error.retry_after,
    )
