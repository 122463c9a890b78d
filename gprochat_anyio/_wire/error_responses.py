"""Errors of a GPROChat site, read from the head and body of its responses."""

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
"""Maximum number of bytes that are read of an error body. Error messages are far shorter."""

_SHOWN = 300
"""Maximum number of characters of a foreign text in an error message."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Names of a server in error messages.

    :param name: The server's name.
    :param url: The name of the setting that holds its address.
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
    """Return the error that the head of any response indicates, or `None`.

    :param headers: The header fields by lower-case name.
    """
    if 300 <= status < 400:
        return UnexpectedResponseError(
            f"{peer.name} responded with a redirect (status {status}), which is never followed; "
            f"check {peer.url}",
            status=status,
        )
    if encoding := headers.get("content-encoding", "").strip().lower().replace("identity", ""):
        return UnexpectedResponseError(
            f"the response is compressed ({shown(encoding)}), which was not requested; "
            f"something in front of {peer.name} modifies its responses",
            status=status,
        )
    return None


def check_reply_head(status: int, headers: Mapping[str, str], *, framed: bool) -> SiteError | None:
    """Return the error that the head of a response to `/api/generate` indicates, or `None`.

    For a status other than 200, `None` means that the body describes the error: pass it to
    `read_error`.

    :param headers: The header fields by lower-case name.
    :param framed: True if the body has a length or chunked encoding.
    """
    if (refused := check_head(status, headers)) is not None or status != 200:
        return refused
    if (kind := headers.get("content-type")) is not None and not _is_utf8_text(kind):
        return UnexpectedResponseError(
            f"the response is {shown(kind)} and not the plain text of a reply: something in front "
            "of the site (a CDN, a captcha, a login page) responded, or the URL is not the site's",
            status=status,
        )
    if not framed:
        return UnexpectedResponseError(
            "the response has neither a length nor chunked encoding, so a reply that is cut off "
            "would look complete; something in front of the site modifies its responses",
            status=status,
        )
    return None


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
    """Return the error for a response with a status other than 200.

    :param headers: The header fields by lower-case name.
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
    if status == 413:
        return too_large_error(SITE, said, facts)
    if site_message is None and (body.strip() or status != 500):
        kind = headers.get("content-type", "a body without a content type")
        return UnexpectedResponseError(
            f"the site responded with status {status} and {shown(kind)}, not an error of a "
            "GPROChat site; check its URL, or whether it is down",
            **facts,
        )
    said = said or (
        " The site gives no reason; its model may have failed. Ask again, and check the URL; the"
        " site's own log has the reason."
    )
    return SiteError(f"the site responded with status {status}.{said}", **facts)


def rate_limit_error(said: str, facts: dict[str, Any]) -> RateLimitError:
    """Return the error for a server that rejects a request because of its rate limit.

    :param said: A sentence that quotes the server, or an empty string.
    :param facts: The error's attributes.
    """
    wait = facts["retry_after"]
    when = f"wait {wait:g} s" if wait is not None else "wait a while"
    return RateLimitError(f"too many requests; {when}, or send fewer at once.{said}", **facts)


def too_large_error(peer: Peer, said: str, facts: dict[str, Any]) -> SiteError:
    """Return the error for a request that is too large for the server, or for a proxy before it.

    :param said: A sentence that quotes the server, or an empty string.
    :param facts: The error's attributes.
    """
    return SiteError(
        f"the request is too large for {peer.name} (status 413); shorten the prompt, or send fewer"
        f" of the messages before it (max_messages of a Conversation).{said}",
        **facts,
    )


def parse_retry_after(value: str | None, date: str | None = None) -> float | None:
    """Return the delay of a `Retry-After` in seconds (RFC 9110, 10.2.3), or `None` if it is
    invalid.

    :param date: The same response's `Date`. An HTTP date is relative to it, as clocks differ.
    """
    if value is None:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - takes 6 ms and is rarely needed

    if value.strip().isascii() and value.strip().isdigit():
        seconds = float(value)
        return seconds if isfinite(seconds) else None  # too many digits become infinity
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
    """Make a foreign text printable and limit its length, for an error message."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= _SHOWN else printable[:_SHOWN] + "…"
