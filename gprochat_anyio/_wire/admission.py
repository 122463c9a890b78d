"""The site's end of the GPROChat wire: admit a request, or refuse it with a response.

The embedded site and the testing kit share this, so both refuse the same requests in the same
order with the same bytes.
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
INVALID_PASSWORD = "Invalid password."  # noqa: S105 - a text of the wire
INVALID_ROLE = "The message history has a role other than user and model."
INVALID_SIGNATURE = "Invalid signature."

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class WireResponse:
    """A whole response, as opposed to a streamed reply."""

    status: int
    body: bytes = b""
    content_type: str | None = None


class Refusal(Exception):  # noqa: N818 - the site is right to refuse
    """A request is not admitted; the client gets `response` instead."""

    def __init__(self, response: WireResponse) -> None:
        super().__init__(response.status)
        self.response = response


def error_response(status: int, message: str, *, code: str | None = None) -> WireResponse:
    """Return the wire's JSON error."""
    details = {"message": message} if code is None else {"code": code, "message": message}
    return _json_response(status, {"error": details})


def model_failure(message: str) -> WireResponse:
    """Return the response for a model that fails before its first text."""
    return error_response(500, message, code=MODEL_FAILURE_CODE)


UNREADABLE: Final = WireResponse(500)
"""The response to a body that is not JSON, and to messages without readable parts."""


@dataclass(frozen=True, slots=True, repr=False)
class Gate:
    """Credentials of a site, and the rules that admit a request.

    :param secret_key: what requests must be signed with
    :param passwords: a request must bring one of them; if there are none, it needs no password
    """

    secret_key: str
    passwords: tuple[str, ...]

    def __post_init__(self) -> None:
        if _LONE_SURROGATE.search(self.secret_key):
            raise ValueError("the secret key is no Unicode text; check how it was read")

    @classmethod
    def of(cls, secret_key: str, passwords: Iterable[str]) -> Gate:
        """Check the settings of a site and make its gate.

        :raises ValueError: If a password is empty, or the secret key is not Unicode text.
        :raises TypeError: If the passwords are one string.
        """
        if isinstance(passwords, str):
            raise TypeError("passwords are an iterable of str; put the one password in a tuple")
        passwords = tuple(passwords)
        if "" in passwords:
            raise ValueError("an empty password lets everybody in; leave it out")
        return cls(secret_key, passwords)

    def admit(self, body: bytes) -> tuple[Turn, ...]:
        """Return the history in the body of `POST /api/generate`.

        The checks run in the order of the original site: the last role, the password, the last
        message's parts, the signature. The rest of the history comes last, which the original
        leaves to its model.

        :raises Refusal: If the request is not admitted. It holds the response.
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
        if not self.has_signature(request, question):
            raise Refusal(error_response(401, INVALID_SIGNATURE))
        return (*map(_turn, messages[:-1]), Turn("user", question))

    def check_password(self, body: bytes) -> WireResponse:
        """Return the response to `POST /api/auth`, which says if the password is right.

        :raises Refusal: If the body is not JSON. It holds the response.
        """
        code = 0 if self.has_password(_read_request(body)) else -1
        return _json_response(200, {"code": code})

    def opens(self, key: str) -> bool:
        """Return True if an API key is one of the passwords or, without any, the secret key.

        So a site that has only a secret key is not open to those without it.
        """
        if self.secret_key and not self.passwords:
            return _same(key, self.secret_key)
        return self._is_password(key)

    def has_password(self, request: dict[str, Any]) -> bool:
        """Return True if a request brings one of the passwords, or needs none."""
        return self._is_password(request.get("pass"))

    def has_signature(self, request: dict[str, Any], text: str) -> bool:
        """Return True if a request is signed with the secret key.

        :param text: the last message's, as `read_parts` returns it
        """
        given, timestamp = request.get("sign"), request.get("time")
        if not isinstance(given, str) or type(timestamp) is not int:
            return False
        return _same(given, sign(timestamp, text, self.secret_key))

    def _is_password(self, given: object) -> bool:
        if not self.passwords:
            return True
        if not isinstance(given, str):
            return False
        # A list, so that each is compared: the time must not tell which one matched.
        return any([_same(given, password) for password in self.passwords])  # noqa: C419


def read_parts(message: dict[str, Any]) -> str | None:
    """Return the text of a message's parts, or None if they are not readable.

    Half a surrogate pair becomes the replacement character, which browsers sign and send for it.
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


def _same(one: str, other: str) -> bool:
    # Digests have one length, so that not even the length of a secret shows in the time taken.
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
