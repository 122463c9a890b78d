"""Requests to a scripted site, for the test to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from gprochat_anyio._wire.admission import Gate, read_parts
from gprochat_anyio._wire.json_body import decode_json_object

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


def read_request(
    gate: Gate, path: str, headers: Mapping[str, str], data: bytes, time: float
) -> Request:
    """Return what was sent, as far as it can be understood."""
    body = decode_json_object(data)
    messages = turns_of(body.get("messages"))
    return Request(
        -1,
        path,
        headers,
        body,
        messages,
        signature_ok=gate.has_signature(body, messages[-1].text if messages else ""),
        password_ok=gate.has_password(body),
        time=time,
    )


def turns_of(messages: object) -> tuple[Turn, ...]:
    """Return the messages of a body, as far as they can be understood."""
    if not isinstance(messages, list):
        return ()
    return tuple(
        Turn(str(message.get("role")), read_parts(message) or "")
        for message in messages
        if isinstance(message, dict)
    )
