"""What the APIs of models have in common in their answers. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

from gprochat_anyio._wire.error_responses import parse_retry_after
from gprochat_anyio.site import Finish, ModelError

_SHOWN = 500
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")
_ASKED_TOO_MUCH = (400, 413, 422)  # as with more text than the model takes: no use to try again
_KEY_REFUSED = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED"})


class Reader(Protocol):
    """Reads the events of one answer."""

    def feed(self, event: dict[str, Any]) -> str:
        """The text in an event, which may be empty.

        :raises ModelError: if the event tells of a failure
        """
        ...

    def finish(self) -> Finish:
        """Why the answer ended, once it has.

        :raises ModelError: if it is not complete
        """
        ...


def loads(data: str | bytes) -> Any:
    """The JSON value, or None for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def error_in(value: Any) -> dict[str, Any]:
    """The error that an answer or an event tells of, in any of the shapes in use; empty if none.

    `{"error": {...}}` with a message, `{"error": "text"}`, and either of them in a list.
    """
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        return error
    return {"message": error} if error else {}


def api_error(
    api: str, key_variable: str, status: int, error: dict[str, Any], headers: Mapping[str, str]
) -> ModelError:
    """What an error of an API means to a site's client.

    :param api: what to call the API
    :param key_variable: what sets its key
    :param headers: of the answer, by lower-case name
    """
    if status in (401, 403) or _reasons(error) & _KEY_REFUSED:
        # Its own words may quote the key.
        return ModelError(
            f"{api} refused the API key; whoever runs the model has to set {key_variable}"
        )
    said = shown(error.get("message"))
    if status == 429:
        wait = parse_retry_after(headers.get("retry-after"), headers.get("date"))
        return ModelError(
            f"{api} asks for fewer requests{said}",
            status=429,
            retry_after=_retry_delay(error) if wait is None else wait,
        )
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return ModelError(
        f"{api} answered with an error: {status}{phrase}{said}",
        status=400 if status in _ASKED_TOO_MUCH else 500,
    )


def status_of(error: dict[str, Any]) -> int:
    """The HTTP status that an error inside a stream stands for; 500 if it does not say."""
    code = error.get("code")
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    return 429 if "rate_limit" in f"{code} {error.get('type')}" else 500


def shown(message: object) -> str:
    """A foreign text to go at the end of ours, on one line and bounded; empty for none."""
    if not isinstance(message, str) or not message.strip():
        return ""
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return f": {line[:_SHOWN]}…" if len(line) > _SHOWN else f": {line}"


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []


def _reasons(error: dict[str, Any]) -> set[str]:
    return {reason for d in _details(error) if isinstance(reason := d.get("reason"), str)}


def _retry_delay(error: dict[str, Any]) -> float | None:
    """Google's `RetryInfo`: `"retryDelay": "39s"`."""
    for detail in _details(error):
        if found := _DELAY.fullmatch(str(detail.get("retryDelay"))):
            return float(found[1])
    return None
