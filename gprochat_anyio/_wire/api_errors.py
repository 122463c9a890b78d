"""Errors of models' APIs, before and within a reply.

A server may echo the key that it was sent. The key is removed from everything that an error quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from gprochat_anyio._errors import AuthenticationError, SiteError, UnexpectedResponseError

from .error_responses import (
    Peer,
    check_head,
    parse_retry_after,
    rate_limit_error,
    shown,
    too_large_error,
)
from .json_body import decode_json

_KEY_REFUSED = ("API_KEY_INVALID", "API_KEY_EXPIRED")
"""Google's reasons for a rejected key with status 400. A tuple, as it may be compared with
unhashable values."""

_READABLE = ("text/event-stream", "application/json")
"""Content types of a success. JSON is not a reply, but holds the reason."""

_STATUSES = {
    "rate_limit": 429,
    "quota": 429,
    "resource_exhausted": 429,
    "overloaded": 503,
    "unavailable": 503,
    "authentication": 401,
    "api_key": 401,
    "permission": 403,
    "not_found": 404,
    "invalid_request": 400,
    "badrequest": 400,
}
"""HTTP statuses by a substring of the name of an error within a stream."""

_STATUS = re.compile("[45][0-9]{2}")
_DELAY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")


class ApiErrors:
    """Reader of an API's errors.

    :param key_setting: The name of the setting that holds the key.
    :param key: The key, which is kept out of every error.
    """

    __slots__ = ("_key", "_key_setting", "peer")

    def __init__(self, peer: Peer, key_setting: str, key: str | None) -> None:
        self.peer = peer
        self._key_setting = key_setting
        self._key = key

    def check_reply_head(self, status: int, headers: Mapping[str, str]) -> SiteError | None:
        """Return the error that a response's head indicates, or `None`.

        For a status other than 200, `None` means that the body describes the error: pass it to
        `read_error`. The body need not be framed, because a reply has an end of its own.

        :param headers: The header fields by lower-case name.
        """
        headers = self._without_key(headers)
        if (refused := check_head(status, headers, self.peer)) is not None or status != 200:
            return refused
        kind = headers.get("content-type", "text/event-stream")
        if kind.partition(";")[0].strip().lower() in _READABLE:
            return None
        return UnexpectedResponseError(
            f"the response is {shown(kind)} and not an event stream: something in front of "
            f"{self.peer.name} (a CDN, a login page) responded; check {self.peer.url}",
            status=status,
        )

    def check_head(self, status: int, headers: Mapping[str, str]) -> SiteError | None:
        """Return the error that the head of any response indicates, or `None`."""
        return check_head(status, self._without_key(headers), self.peer)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error for a response with a status other than 200.

        :param headers: The header fields by lower-case name.
        """
        headers = self._without_key(headers)
        try:
            value = decode_json(body)
        except ValueError:
            value = None
        error = error_in(value) or _unwrapped(value)
        known = error or status in (401, 413, 429) or (status == 500 and not body.strip())
        if not known:
            kind = headers.get("content-type", "a body without a content type")
            return UnexpectedResponseError(
                f"{self.peer.name} responded with status {status} and {shown(kind)}, not an error "
                f"of its API; check {self.peer.url}, or whether it is down",
                status=status,
                retry_after=parse_retry_after(headers.get("retry-after"), headers.get("date")),
            )
        try:
            phrase = f" ({HTTPStatus(status).phrase})"
        except ValueError:
            phrase = ""
        return self._error(f"responded with status {status}{phrase}", status, error, headers)

    def in_stream(self, error: Mapping[str, Any]) -> SiteError:
        """Return the error that an event reports. Its status is derived from its name.

        :param error: The error as `error_in` returns it.
        """
        return self._error("reported an error", _status_of(error), error, {})

    def in_place_of_stream(self, value: object) -> SiteError:
        """Return the error for a response of JSON with status 200."""
        if error := error_in(value):
            return self.in_stream(error)
        return UnexpectedResponseError(
            f"{self.peer.name} sent JSON and not an event stream; check {self.peer.url}, or "
            "whether the server can stream",
            status=200,
        )

    def in_place_of_list(self, value: object) -> SiteError:
        """Return the error for a body with status 200 that is not a list of models.

        :param value: The body's JSON value, or `None` if it is not JSON.
        """
        if error := error_in(value):
            return self.in_stream(error)
        return UnexpectedResponseError(
            f"{self.peer.name} sent something other than a list of models; check {self.peer.url}",
            status=200,
        )

    def of_reply(self, what: str, *, code: str, message: str | None = None) -> SiteError:
        """Return the error for a reply that ended without success.

        :param what: The end of the message, after the peer's name.
        :param message: The server's own message.
        """
        return self._error(what, 200, {"code": code, "message": message}, {})

    def _error(
        self, what: str, status: int, error: Mapping[str, Any], headers: Mapping[str, str]
    ) -> SiteError:
        details, code, message = _details(error), self._code(error), error.get("message")
        message = self.hide_key(message).strip() if isinstance(message, str) else ""
        wait = parse_retry_after(headers.get("retry-after"), headers.get("date"))
        facts: dict[str, Any] = {
            "status": status,
            "code": code,
            "site_message": message or None,
            "retry_after": _retry_delay(details) if wait is None else wait,
        }
        said = self.peer.said(message) if message else f" Its code is {code}." if code else ""
        if status == 401 or any(detail.get("reason") in _KEY_REFUSED for detail in details):
            # The server's own message may quote a part of the key.
            return AuthenticationError(self._key_refused(), **{**facts, "site_message": None})
        if status == 403:
            return AuthenticationError(f"{self._key_refused()}{said}", **facts)
        if status == 429:
            return rate_limit_error(said, facts)
        if status == 413:
            return too_large_error(self.peer, said, facts)
        if status == 500 and not said:
            said = " It gives no reason; ask again, and look into the server's own log."
        return SiteError(f"{self.peer.name} {what}.{said}", **facts)

    def _key_refused(self) -> str:
        if self._key is None:
            return f"{self.peer.name} requires an API key; set {self._key_setting}."
        return (
            f"{self.peer.name} refused the API key; set {self._key_setting} to one with access to "
            "the model."
        )

    def _code(self, error: Mapping[str, Any]) -> str | None:
        """Return an error's name, or its number if it has none."""
        values = [error.get(name) for name in ("status", "code", "type")]
        words = [value for value in values if isinstance(value, str) and value]
        if words:
            return shown(self.hide_key(words[0]))
        numbers = [value for value in values if type(value) is int and 0 <= value < 100_000]
        return str(numbers[0]) if numbers else None

    def _without_key(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self.hide_key(value) for name, value in headers.items()}

    def hide_key(self, text: str) -> str:
        """Remove the key from a server's text."""
        return text.replace(self._key, "***") if self._key else text


def error_in(value: object) -> dict[str, Any]:
    """Return the error in a response or an event, or an empty dictionary.

    The shapes are `{"error": {...}}` with a message, `{"error": "text"}`, either of them in a list,
    and vLLM's `{"object": "error", ...}`.
    """
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return {}
    if value.get("object") == "error":
        return value
    error = value.get("error")
    if isinstance(error, dict):
        return error
    return {"message": error} if error else {}


def _unwrapped(value: object) -> dict[str, Any]:
    """Return the error in a body without "error", as gateways send it."""
    if not isinstance(value, dict):
        return {}
    message = value.get("message", value.get("detail"))
    return {**value, "message": message} if isinstance(message, str) else {}


def _status_of(error: Mapping[str, Any]) -> int:
    code = error.get("code")
    if type(code) is int and 400 <= code < 600:
        return code
    if isinstance(code, str) and _STATUS.fullmatch(code):
        return int(code)
    words = " ".join(
        word.lower()
        for name in ("code", "type", "status")
        if isinstance(word := error.get(name), str)
    )
    return next((status for part, status in _STATUSES.items() if part in words), 500)


def _details(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """Return the delay of Google's `RetryInfo` in seconds: `"retryDelay": "39s"`."""
    for detail in details:
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (found := _DELAY.fullmatch(delay)):
            return float(found[1])
    return None
