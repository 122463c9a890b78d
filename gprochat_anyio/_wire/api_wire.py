"""The client's end of a model's API: its settings, validated, and its errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from gprochat_anyio._errors import SiteError
from gprochat_anyio._redaction import HiddenText

from .api_errors import ApiErrors
from .error_responses import Peer
from .json_body import encode_json
from .messages import Message
from .wire import ReplyDecoder


class ApiWire(ABC):
    """The client's end of a model's API.

    :param path: below the base URL
    :param key_header: the header field that carries the key, and what precedes the key in it
    :param key_setting: the setting that holds the key, for errors
    :param system: a system text for every request
    :param fields: more fields of the body; one that is None is left out
    :param default_fields: fields of the body unless `fields` has others
    :raises ValueError: If a setting is invalid. The message names it, and never shows the key.
    """

    provider: str
    """In the terms of OpenTelemetry."""

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
            raise ValueError("model must be the name of one of the server's models")
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

        :param messages: may begin with one of the system; then user and model alternate, and the
            last is the user's
        """

    @abstractmethod
    def decoder(self, max_size: int | None) -> ReplyDecoder:
        """Return a fresh decoder for the body of one reply.

        :param max_size: Maximum size of its text in bytes, `None` for no limit.
        """

    def check_reply_head(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        framed: bool,  # noqa: ARG002 - a finish reason shows the end of a reply
    ) -> SiteError | None:
        """Return the error that the head of a response shows, if it shows one.

        A status other than 200 gives None if the body should say more: pass it to `read_error`.

        :param headers: by lower-case name
        :param framed: True if the end of the body differs from a broken connection
        """
        return self._errors.check_reply_head(status, headers)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error that a response with a status other than 200 stands for.

        :param headers: by lower-case name
        """
        return self._errors.read_error(status, headers, body)

    def _split(self, messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
        """Return the system's text and the turns of a history."""
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
