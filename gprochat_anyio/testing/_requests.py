"""What a scripted site was asked, and whether a real one would have let it in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from gprochat_anyio._wire.gprochat import sign

from ._steps import Refuse

Outcome: TypeAlias = Literal["running", "complete", "left", "dropped", "refused", "failed"]


class Turn(NamedTuple):
    """One message as it was sent: equal to the tuple of its role and its text."""

    role: str
    """`"user"` or `"model"`."""
    text: str


@dataclass(slots=True)
class Request:
    """What the site was asked. Its `repr` shows neither prompt nor password."""

    number: int
    """0 for the first that the site let in; those it refused of itself have no number: -1."""
    path: str
    """Of its URL."""
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name."""
    body: Mapping[str, Any] = field(repr=False)
    """The JSON object that was sent; empty if it was none."""
    messages: tuple[Turn, ...] = field(repr=False)
    """The history, oldest first."""
    signature_ok: bool
    """Whether it was signed with the site's secret key."""
    password_ok: bool
    """Whether it brought the site's password, or the site has none."""
    time: float
    """When it had arrived, by the event loop's clock."""
    outcome: Outcome = "running"
    """What became of it: `"left"` if the client closed the connection before the end of the reply,
    `"dropped"` if the site did, `"failed"` by a `Fail`, `"refused"` by an error answer."""

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return self.messages[-1].text if self.messages else ""


class Gate:
    """Judges requests as a site does.

    :param password: None lets everybody in
    """

    def __init__(self, secret_key: str, password: str | None) -> None:
        self.secret_key = secret_key
        self.password = password

    def read(self, path: str, headers: Mapping[str, str], data: bytes, time: float) -> Request:
        """What was sent, as far as it can be understood."""
        body = json_object(data)
        messages = turns_of(body.get("messages"))
        text = messages[-1].text if messages else ""
        when = body.get("time")
        signed = isinstance(when, int) and body.get("sign") == sign(when, text, self.secret_key)
        return Request(
            -1,
            path,
            headers,
            body,
            messages,
            signature_ok=signed,
            password_ok=self.is_password(body),
            time=time,
        )

    def is_password(self, body: Mapping[str, Any]) -> bool:
        """Whether a body has the site's password."""
        return self.password is None or body.get("pass") == self.password

    @staticmethod
    def refusal(request: Request) -> Refuse | None:
        """What a real site would answer to a request that it does not let in."""
        if not request.body:
            return Refuse(500)
        if not request.messages or request.messages[-1].role != "user":
            return Refuse(400, "Invalid message history: The last message must be from user role.")
        if not request.password_ok:
            return Refuse(401, "Invalid password.")
        if not request.signature_ok:
            return Refuse(401, "Invalid signature.")
        return None


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object of a body; an empty one if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def turns_of(messages: object) -> tuple[Turn, ...]:
    """The messages of a body, as far as they can be understood."""
    if not isinstance(messages, list):
        return ()
    return tuple(Turn(str(m.get("role")), _text(m)) for m in messages if isinstance(m, dict))


def _text(message: Mapping[str, Any]) -> str:
    parts = message.get("parts")
    if not isinstance(parts, list):
        return ""
    text = "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    # What a browser signs and sends for half a surrogate pair.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
