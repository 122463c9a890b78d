"""The client's end of a model's API: its validated settings, and its errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from gprochat_anyio._errors import InvalidPromptError, SiteError
from gprochat_anyio._redaction import HiddenText

from .api_errors import ApiErrors
from .error_responses import Peer
from .json_body import decode_json, encode_json
from .messages import Message, refused_fields
from .wire import ReplyDecoder


class ModelPage(NamedTuple):
    """A page of a list of models."""

    names: list[str]
    next_token: str | None = None


class ApiWire(ABC):
    """The client's end of a model's API.

    :param path: The path of requests below the base URL.
    :param key_header: The name of the header field that carries the key, and the prefix of its
        value.
    :param key_setting: The name of the setting that holds the key, for errors.
    :param system: A system message for every request.
    :param fields: Additional fields of the body. A value of `None` omits the field.
    :param default_fields: Fields of the body that `fields` may replace.
    :raises ValueError: If a setting is invalid. The message names it, and never shows the key.
    """

    provider: str
    """The API's name in OpenTelemetry's terms."""

    def __init__(
        self,
        peer: Peer,
        path: str,
        *,
        model: str,
        api_key: str | None,
        key_header: tuple[str, str],
        key_setting: str,
        system: str | None,
        fields: Mapping[str, Any] | None,
        default_fields: Mapping[str, Any],
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise ValueError("model must be the name of a model of the server")
        _check_key(api_key, key_setting)
        if system is not None and not isinstance(system, str):
            raise ValueError(f"system must be a str, not {type(system).__name__}")
        try:
            given = {**default_fields, **(fields or {})}
            encode_json(given)
        except (TypeError, ValueError, RecursionError):
            raise ValueError("fields must be a mapping from names to JSON values") from None
        self.model = model
        self.peer = peer.name
        self.path = path
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            name, prefix = key_header
            headers[name] = HiddenText(prefix + api_key)
        self.headers: Mapping[str, str] = headers
        self._system = system
        self._fields = {name: value for name, value in given.items() if value is not None}
        self._errors = ApiErrors(peer, key_setting, api_key or None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model}>"

    @abstractmethod
    def encode(self, messages: Sequence[Message]) -> bytes:
        """Return the body of a request.

        :param messages: Optionally one system message, then alternating messages of user and model.
            The last is the user's.
        """

    def with_fields(self, fields: Mapping[str, Any]) -> Self | InvalidPromptError:
        """Return a wire that adds fields to the body of its requests, or the error."""
        return refused_fields(fields)

    @abstractmethod
    def decoder(self, max_size: int | None) -> ReplyDecoder:
        """Return a new decoder for the body of one reply.

        :param max_size: Maximum size of the text in bytes, `None` for no limit.
        """

    def check_reply_head(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        framed: bool,  # noqa: ARG002 - a finish reason marks the end of a reply
    ) -> SiteError | None:
        """Return the error that a response's head indicates, or `None`.

        For a status other than 200, `None` means that the body describes the error: pass it to
        `read_error`.

        :param headers: The header fields by lower-case name.
        :param framed: True if the body has a length or chunked encoding.
        """
        return self._errors.check_reply_head(status, headers)

    def models_path(self, token: str | None) -> str:  # noqa: ARG002 - only some APIs have pages
        """Return the path of the list of the API's models.

        :param token: The token of a page after the first.
        """
        return "/models"

    def read_models(self, body: bytes) -> ModelPage | SiteError:
        """Return a page of the list of models, or the error that the body reports."""
        try:
            value = decode_json(body)
        except ValueError:
            value = None
        return self._models_in(value) or self._errors.in_place_of_list(value)

    @abstractmethod
    def _models_in(self, value: Any) -> ModelPage | None:
        """Return the models in a list, or `None` for any other value."""

    def check_head(self, status: int, headers: Mapping[str, str]) -> SiteError | None:
        """Return the error that the head of any response indicates, or `None`."""
        return self._errors.check_head(status, headers)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error for a response with a status other than 200.

        :param headers: The header fields by lower-case name.
        """
        return self._errors.read_error(status, headers, body)

    def _split(self, messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
        """Split a history into the system message's text and the turns."""
        parts = [self._system] if self._system else []
        if messages[0].wire_role == "system":
            parts.append(messages[0].content)
            messages = messages[1:]
        return "\n\n".join(parts), messages


def _check_key(key: str | None, setting: str) -> None:
    if key is None:
        return
    if not isinstance(key, str) or not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(f"{setting} has a character that no API key has, or is not a str")
