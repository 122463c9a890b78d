"""The site's side of the wire without any I/O: whether a request is let in, and with what."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final

from gprochat_anyio._wire.gprochat import sign

from ._models import Turn

INVALID_HISTORY = "Invalid message history: The last message must be from user role."
INVALID_PASSWORD = "Invalid password."  # noqa: S105 - a text of the wire
INVALID_SIGNATURE = "Invalid signature."

REPLY_CONTENT_TYPE = "text/plain; charset=utf-8"
_JSON_CONTENT_TYPE = "text/plain;charset=UTF-8"  # the wire's own: its JSON says that it is text
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, as opposed to a streamed reply."""

    status: int
    body: bytes = b""
    content_type: str | None = None


class Refusal(Exception):  # noqa: N818 - the site is right to refuse
    """The request is not let in; `answer` is what the client gets."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def error_answer(status: int, message: str, *, code: str | None = None) -> Answer:
    """The wire's JSON error."""
    details = {"message": message} if code is None else {"code": code, "message": message}
    return _json_answer(status, {"error": details})


UNREADABLE: Final = Answer(500)
"""For a body that is no JSON, and for messages without readable parts."""


@dataclass(frozen=True, slots=True, repr=False)
class Gate:
    """Lets in requests that are signed with the secret key and have one of the passwords.

    :param passwords: none at all lets everybody in
    """

    secret_key: str
    passwords: tuple[str, ...]

    def __post_init__(self) -> None:
        if _LONE_SURROGATE.search(self.secret_key):
            raise ValueError("the secret key is no Unicode text; check how it was read")

    @classmethod
    def of(cls, secret_key: str, passwords: Iterable[str]) -> Gate:
        """:raises ValueError: for an empty password, or a secret key that is no Unicode text
        :raises TypeError: for passwords given as one string
        """
        if isinstance(passwords, str):
            raise TypeError("passwords are an iterable of str; put the one password in a tuple")
        passwords = tuple(passwords)
        if "" in passwords:
            raise ValueError("an empty password lets everybody in; leave it out")
        return cls(secret_key, passwords)

    def admit(self, body: bytes) -> tuple[Turn, ...]:
        """The history that the body of `POST /api/generate` asks to answer.

        Checked in the order of the original site: the last role, the password, the last
        message's parts, the signature; then the rest of the history, which there the model does.

        :raises Refusal: with the answer instead
        """
        request = _loads(body)
        messages = request.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        if (
            not isinstance(messages, list)
            or not isinstance(last, dict)
            or last.get("role") != "user"
        ):
            raise Refusal(error_answer(400, INVALID_HISTORY))
        if not self._is_password(request.get("pass")):
            raise Refusal(error_answer(401, INVALID_PASSWORD))
        question = _text_of(last)
        if not self._is_signature(request.get("sign"), request.get("time"), question):
            raise Refusal(error_answer(401, INVALID_SIGNATURE))
        return (*map(_turn, messages[:-1]), Turn("user", question))

    def check_password(self, body: bytes) -> Answer:
        """What `POST /api/auth` answers.

        :raises Refusal: when the body is no JSON
        """
        return _json_answer(200, {"code": 0 if self._is_password(_loads(body).get("pass")) else -1})

    def opens(self, key: str) -> bool:
        """Whether an API key lets in: any of the passwords or, where there is none, the secret key.

        So that a site which only has a secret key is not open to those without it.
        """
        if self.secret_key and not self.passwords:
            return _same(key, self.secret_key)
        return self._is_password(key)

    def _is_password(self, given: object) -> bool:
        if not self.passwords:
            return True
        if not isinstance(given, str):
            return False
        # A list, so that each is compared: the time must not tell which one matched.
        return any([_same(given, password) for password in self.passwords])  # noqa: C419

    def _is_signature(self, given: object, timestamp: object, text: str) -> bool:
        if not isinstance(given, str) or type(timestamp) is not int:
            return False
        return _same(given, sign(timestamp, text, self.secret_key))


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
    refused = "The message history has a role other than user and model."
    raise Refusal(error_answer(500, refused, code="Error"))


def _text_of(message: dict[str, Any]) -> str:
    parts = message.get("parts")
    if not isinstance(parts, list):
        raise Refusal(UNREADABLE)
    texts: list[str] = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise Refusal(UNREADABLE)
        texts.append(text)
    # What a browser signs and sends for half a surrogate pair.
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", "".join(texts))


def _loads(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refusal(UNREADABLE) from None
    return value if isinstance(value, dict) else {}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _json_answer(status: int, value: object) -> Answer:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair becomes its JSON escape.
    return Answer(status, text.encode(errors="backslashreplace"), _JSON_CONTENT_TYPE)
