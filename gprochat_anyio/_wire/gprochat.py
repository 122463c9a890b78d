"""The GPROChat wire without any I/O: signing, request bodies, error answers.

Shared by the client, the embedded site and the tests, so that they can not drift apart.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import isfinite
from typing import Any

from gprochat_anyio._errors import (
    AuthenticationError,
    RateLimitError,
    SiteError,
    UnexpectedResponseError,
)
from gprochat_anyio._redaction import Hidden

from .messages import Message

GENERATE_PATH = "/api/generate"
AUTH_PATH = "/api/auth"
REQUEST_CONTENT_TYPE = "text/plain;charset=UTF-8"
FAILURE_MARKER = b"Internal server error"
"""Sent as the last HTTP chunk of a 200 answer when the model failed after the head was sent."""

ERROR_BODY_LIMIT = 64 * 1024
"""How much of an error answer's body is read, in bytes; the rest is of no use to anybody."""

_SHOWN = 300
"""How many characters of a foreign text an error message shows."""


def sign(timestamp: int, text: str, secret_key: str) -> str:
    """The signature of a request: lower-case hex SHA-256 of `timestamp:text:secret_key`.

    :param timestamp: Unix time in milliseconds
    :param text: the concatenation of the last message's parts
    """
    return hashlib.sha256(f"{timestamp}:{text}:{secret_key}".encode()).hexdigest()


def encode_generate(
    messages: Iterable[Message],
    *,
    secret_key: str,
    password: str | None,
    timestamp: int | None = None,
) -> bytes:
    """The body of `POST /api/generate` for a history.

    :param messages: as `_messages.history` makes them, the last one the user's
    :param timestamp: Unix time in milliseconds; None takes the time now
    """
    if timestamp is None:
        timestamp = time.time_ns() // 1_000_000
    turns = [(m.wire_role, m.content) for m in messages]
    return _encode(
        {
            "messages": [{"role": role, "parts": [{"text": text}]} for role, text in turns],
            "time": timestamp,
            "pass": password,
            "sign": sign(timestamp, turns[-1][1], secret_key),
        }
    )


def encode_auth(password: str | None) -> bytes:
    """The body of `POST /api/auth`."""
    return _encode({"pass": password if password is not None else ""})


def decode_auth(body: bytes) -> bool:
    """Whether an answer of `/api/auth` says that the password is right.

    :raises UnexpectedResponseError: when it says neither
    """
    code = _loads(body).get("code")
    if code not in (0, -1) or isinstance(code, bool):
        raise UnexpectedResponseError(
            "the answer to the password check is not one of a GPROChat site; check the site's URL",
            status=200,
        )
    return bool(code == 0)


def check_head(status: int, headers: Mapping[str, str]) -> SiteError | None:
    """What makes an answer useless, whatever was asked, and can be told from its head, if anything.

    :param headers: by lower-case name
    """
    if 300 <= status < 400:
        return UnexpectedResponseError(
            f"the site answered with a redirect (status {status}), which is never followed; "
            "check the site's URL",
            status=status,
        )
    if encoding := headers.get("content-encoding", "").strip().lower().replace("identity", ""):
        return UnexpectedResponseError(
            f"the answer is compressed ({_shown(encoding)}) although that was not asked for; "
            "something in front of the site changes its answers",
            status=status,
        )
    return None


def check_reply_head(status: int, headers: Mapping[str, str], *, framed: bool) -> SiteError | None:
    """What is wrong with the head of an answer that should be a reply, if anything.

    None too for an error answer whose body should say more: give that body to `read_error`.

    :param headers: by lower-case name
    :param framed: whether the body's end can be told from a broken connection
    """
    if (refused := check_head(status, headers)) is not None or status != 200:
        return refused
    if (kind := headers.get("content-type")) is not None and not _is_utf8_text(kind):
        return UnexpectedResponseError(
            f"the answer is {_shown(kind)} and not the plain text of a reply: something in front "
            "of the site (a CDN, a captcha, a login page) answered, or the URL is not the site's",
            status=status,
        )
    if not framed:
        return UnexpectedResponseError(
            "the answer does not say where it ends (neither chunked nor of a given length), so a "
            "broken one could not be told from a whole one; something in front of the site "
            "rewrites its answers",
            status=status,
        )
    return None


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
    """The error that an answer with a status other than 200 stands for.

    :param headers: by lower-case name
    """
    error = _loads(body).get("error")
    details: dict[str, Any] = error if isinstance(error, dict) else {}
    message, code = details.get("message"), details.get("code")
    site_message = message if isinstance(message, str) else None
    facts: dict[str, Any] = {
        "status": status,
        "code": str(code) if isinstance(code, str | int) else None,
        "site_message": site_message,
        "retry_after": parse_retry_after(headers.get("retry-after"), headers.get("date")),
    }
    said = f" The site says: {_shown(site_message)}" if site_message else ""
    if status == 429 or _is_hidden_rate_limit(site_message or ""):
        wait = facts["retry_after"]
        when = f"wait {wait:g} s" if wait is not None else "wait a while"
        return RateLimitError(f"too many requests; {when}, or ask less at once.{said}", **facts)
    if status == 401 and site_message is not None:
        what, setting = _rejected_credential(site_message)
        return AuthenticationError(
            f"the site refused the {what}; set {setting} to the site's own.{said}", **facts
        )
    if site_message is None and (body.strip() or status != 500):
        kind = headers.get("content-type", "a body of no type")
        return UnexpectedResponseError(
            f"the site answered with status {status} and {_shown(kind)}, not an error of a "
            "GPROChat site; check its URL, or whether it is down",
            **facts,
        )
    said = said or " The site gives no reason; the request may not be one it understands."
    return SiteError(f"the site answered with status {status}.{said}", **facts)


def parse_retry_after(value: str | None, date: str | None = None) -> float | None:
    """The seconds that a `Retry-After` asks to wait (RFC 9110, 10.2.3), or None.

    :param date: the answer's own `Date`, against which an HTTP date is read; clocks differ
    """
    if value is None:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - takes 6 ms, and few need it

    if value.strip().isascii() and value.strip().isdigit():
        seconds = float(value)
        return seconds if isfinite(seconds) else None  # 400 digits: nobody waits until then
    try:
        then = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    try:
        now = parsedate_to_datetime(date).timestamp() if date else time.time()
    except (ValueError, OverflowError):
        now = time.time()
    return max(0.0, then - now)


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _encode(value: object) -> bytes:
    return Hidden(_to_json(value).encode())


def _loads(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=16)  # a site sends the same value each time
def _is_utf8_text(content_type: str) -> bool:
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset")]
    return kind == "text/plain" and all(c in ("utf-8", "utf8", "us-ascii") for c in charsets)


def _is_hidden_rate_limit(site_message: str) -> bool:
    return "[429 " in site_message or "quota exceeded" in site_message.lower()


def _rejected_credential(site_message: str) -> tuple[str, str]:
    if "password" in site_message.lower():
        return "password", "password (GPROCHAT_PASSWORD)"
    return "signature", "secret_key (GPROCHAT_SECRET_KEY)"


def _shown(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= _SHOWN else printable[:_SHOWN] + "…"
