"""Responses that are not replies: what a head or an error body says is wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

from gprochat_anyio._errors import (
    AuthenticationError,
    RateLimitError,
    SiteError,
    UnexpectedResponseError,
)

from .json_body import decode_json_object

ERROR_BODY_LIMIT = 64 * 1024
"""Bytes of an error body that are read; an error's message is far shorter."""

_SHOWN = 300
"""Characters of a foreign text that an error message shows, at most."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Names in the error messages about a server.

    :param name: of the server
    :param url: of the setting that leads to it
    """

    name: str
    url: str

    def said(self, message: str) -> str:
        """Return a sentence that quotes the server."""
        return f" {self.name[0].upper()}{self.name[1:]} says: {shown(message)}"


SITE = Peer("the site", "the site's URL")


def check_head(
    status: int, headers: Mapping[str, str], peer: Peer = SITE
) -> UnexpectedResponseError | None:
    """Return the error that any response with this head stands for, if its head shows one.

    :param headers: by lower-case name
    """
    if 300 <= status < 400:
        return UnexpectedResponseError(
            f"{peer.name} answered with a redirect (status {status}), which is never followed; "
            f"check {peer.url}",
            status=status,
        )
    if encoding := headers.get("content-encoding", "").strip().lower().replace("identity", ""):
        return UnexpectedResponseError(
            f"the answer is compressed ({shown(encoding)}) although that was not asked for; "
            f"something in front of {peer.name} changes its answers",
            status=status,
        )
    return None


def check_reply_head(status: int, headers: Mapping[str, str], *, framed: bool) -> SiteError | None:
    """Return the error that the head of a response to `/api/generate` shows, if it shows one.

    A status other than 200 gives None if the body should say more: pass it to `read_error`.

    :param headers: by lower-case name
    :param framed: True if the end of the body differs from a broken connection
    """
    if (refused := check_head(status, headers)) is not None or status != 200:
        return refused
    if (kind := headers.get("content-type")) is not None and not _is_utf8_text(kind):
        return UnexpectedResponseError(
            f"the answer is {shown(kind)} and not the plain text of a reply: something in front "
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
    """Return the error that a response with a status other than 200 stands for.

    :param headers: by lower-case name
    """
    error = decode_json_object(body).get("error")
    details: dict[str, Any] = error if isinstance(error, dict) else {}
    message, code = details.get("message"), details.get("code")
    site_message = message if isinstance(message, str) else None
    facts: dict[str, Any] = {
        "status": status,
        "code": str(code) if isinstance(code, str | int) else None,
        "site_message": site_message,
        "retry_after": parse_retry_after(headers.get("retry-after"), headers.get("date")),
    }
    said = SITE.said(site_message) if site_message else ""
    if status == 429 or _is_hidden_rate_limit(site_message or ""):
        return rate_limit_error(said, facts)
    if status == 401 and site_message is not None:
        what, setting = _rejected_credential(site_message)
        return AuthenticationError(
            f"the site refused the {what}; set {setting} to the site's own.{said}", **facts
        )
    if site_message is None and (body.strip() or status != 500):
        kind = headers.get("content-type", "a body of no type")
        return UnexpectedResponseError(
            f"the site answered with status {status} and {shown(kind)}, not an error of a "
            "GPROChat site; check its URL, or whether it is down",
            **facts,
        )
    said = said or " The site gives no reason; the request may not be one it understands."
    return SiteError(f"the site answered with status {status}.{said}", **facts)


def rate_limit_error(said: str, facts: dict[str, Any]) -> RateLimitError:
    """Return the error of a server that asks for fewer requests.

    :param said: a sentence with its own words, or nothing
    :param facts: the error's attributes
    """
    wait = facts["retry_after"]
    when = f"wait {wait:g} s" if wait is not None else "wait a while"
    return RateLimitError(f"too many requests; {when}, or ask less at once.{said}", **facts)


def parse_retry_after(value: str | None, date: str | None = None) -> float | None:
    """Return the seconds that a `Retry-After` asks to wait (RFC 9110, 10.2.3), if it is valid.

    :param date: the same response's `Date`; an HTTP date is relative to it, as clocks differ
    """
    if value is None:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - takes 6 ms, and few need it

    if value.strip().isascii() and value.strip().isdigit():
        seconds = float(value)
        return seconds if isfinite(seconds) else None  # 400 digits are infinite
    try:
        then = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    try:
        now = parsedate_to_datetime(date).timestamp() if date else time.time()
    except (ValueError, OverflowError):
        now = time.time()
    return max(0.0, then - now)


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


def shown(text: str) -> str:
    """Return a foreign text as a message may show it: printable, and bounded."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= _SHOWN else printable[:_SHOWN] + "…"
