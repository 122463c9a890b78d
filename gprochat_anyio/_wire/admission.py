"""The site's end of the GPROChat wire: admit a request, or refuse it with a response.

The embedded site and the testing kit share this module. Both therefore run the same checks in the
same order and refuse with the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final

from .gprochat import MODEL_FAILURE_CODE, REQUEST_CONTENT_TYPE, sign
from .json_body import decode_json, encode_json
from .model_api import Turn

INVALID_HISTORY = "Invalid message history: The last message must be from user role."
INVALID_PASSWORD = "Invalid password."  # noqa: S105 - a message of the wire
INVALID_ROLE = "The message history has a role other than user and model."
INVALID_SIGNATURE = "Invalid signature."

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class WireResponse:
    """A complete response, as opposed to a streamed reply."""

    status: int
    body: bytes = b""
    content_type: str | None = None


class Refusal(Exception):  # noqa: N818 - the site is right to refuse
    """Raised to refuse a request. `response` is sent to the client."""

    def __init__(self, response: WireResponse) -> None:
        super().__init__(response.status)
        self.response = response


def error_response(status: int, message: str, *, code: str | None = None) -> WireResponse:
    """Return the wire's JSON error."""
    details = {"message": message} if code is None else {"code": code, "message": message}
    return _json_response(status, {"error": details})


def model_failure(message: str) -> WireResponse:
    """Return the response to a request whose model failed before its first text."""
    return error_response(500, message, code=MODEL_FAILURE_CODE)


UNREADABLE: Final = WireResponse(500)
"""The response to a body that is not JSON, and to a message without readable parts."""


@dataclass(frozen=True, slots=True, repr=False)
class Gate:
    """Admission control of a site: its credentials, and the rules for requests.

    :param secret_key: The key that signs requests.
    :param passwords: The accepted passwords. If empty, no password is required.
    """

    secret_key: str
    passwords: tuple[str, ...]

    def __post_init__(self) -> None:
        if _LONE_SURROGATE.search(self.secret_key):
            raise ValueError("the secret key is not valid Unicode; check how it was read")

    @classmethod
    def of(cls, secret_key: str, passwords: Iterable[str]) -> Gate:
        """Validate the settings of a site and return its gate.

        :raises ValueError: If a password is empty, or the secret key is not valid Unicode.
        :raises TypeError: If `passwords` is a single string.
        """
        if isinstance(passwords, str):
            raise TypeError(
                "passwords must be an iterable of str; put a single password in a tuple"
            )
        passwords = tuple(passwords)
        if "" in passwords:
            raise ValueError("an empty password lets everybody in; leave it out")
        return cls(secret_key, passwords)

    def admit(self, body: bytes, *, signed: bool = True) -> tuple[Turn, ...]:
        """Return the history in the body of `POST /api/generate`.

        The checks run in the original site's order: the last message's role, the password, the last
        message's parts, the signature. The rest of the history is checked last; the original leaves
        that to its model.

        :param signed: Require a signature.
        :raises Refusal: If the request is refused. It holds the response.
        """
        request = _read_request(body)
        messages = request.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        if (
            not isinstance(messages, list)
            or not isinstance(last, dict)
            or last.get("role") != "user"
        ):
            raise Refusal(error_response(400, INVALID_HISTORY))
        if not self.has_password(request):
            raise Refusal(error_response(401, INVALID_PASSWORD))
        question = _text_of(last)
        if signed and not self.has_signature(request, question):
            raise Refusal(error_response(401, INVALID_SIGNATURE))
        return (*map(_turn, messages[:-1]), Turn("user", question))

    def check_password(self, body: bytes) -> WireResponse:
        """Return the response to `POST /api/auth`, which says if the password is correct.

        :raises Refusal: If the body is not JSON. It holds the response.
        """
        code = 0 if self.has_password(_read_request(body)) else -1
        return _json_response(200, {"code": code})

    def opens(self, key: str) -> bool:
        """Return True if an API key is one of the passwords.

        Without passwords, the API key must be the secret key, so that a site with only a secret key
        is not open to everybody.
        """
        if self.secret_key and not self.passwords:
            return is_same_secret(key, self.secret_key)
        return self._is_password(key)

    def has_password(self, request: dict[str, Any]) -> bool:
        """Return True if a request has one of the passwords, or none is required."""
        return self._is_password(request.get("pass"))

    def has_signature(self, request: dict[str, Any], text: str) -> bool:
        """Return True if a request is signed with the secret key.

        :param text: The last message's text, as `read_parts` returns it.
        """
        given, timestamp = request.get("sign"), request.get("time")
        if not isinstance(given, str) or type(timestamp) is not int:
            return False
        return is_same_secret(given, sign(timestamp, text, self.secret_key))

    def _is_password(self, given: object) -> bool:
        if not self.passwords:
            return True
        if not isinstance(given, str):
            return False
        # A list compares with every password: the time must not reveal which one matched.
        return any([is_same_secret(given, password) for password in self.passwords])  # noqa: C419


def read_parts(message: dict[str, Any]) -> str | None:
    """Return the text of a message's parts, or `None` if they are not readable.

    A lone surrogate becomes the replacement character, as in the text that browsers sign and send.
    """
    parts = message.get("parts")
    if not isinstance(parts, list):
        return None
    texts: list[str] = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            return None
        texts.append(text)
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", "".join(texts))


def is_same_secret(one: str, other: str) -> bool:
    """Compare two secrets in a time that reveals neither."""
    # Digests have a fixed length, so the time does not reveal a secret's length either.
    return compare_digest(_digest(one), _digest(other))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _turn(message: object) -> Turn:
    if not isinstance(message, dict):
        raise Refusal(UNREADABLE)
    text = _text_of(message)
    role = message.get("role")
    if role == "user" or role == "model":  # noqa: PLR1714 - narrows the type
        return Turn(role, text)
    raise Refusal(model_failure(INVALID_ROLE))


def _text_of(message: dict[str, Any]) -> str:
    if (text := read_parts(message)) is None:
        raise Refusal(UNREADABLE)
    return text


def _read_request(body: bytes) -> dict[str, Any]:
    try:
        request = decode_json(body, strict=True)
    except ValueError:
        raise Refusal(UNREADABLE) from None
    return request if isinstance(request, dict) else {}


def _json_response(status: int, value: object) -> WireResponse:
    return WireResponse(status, encode_json(value), REQUEST_CONTENT_TYPE)
