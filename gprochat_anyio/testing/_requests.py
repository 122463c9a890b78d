"""Requests to a scripted site, for the test to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

Api: TypeAlias = Literal["gprochat", "openai", "gemini"]
Outcome: TypeAlias = Literal["running", "complete", "left", "dropped", "refused", "failed"]


class Turn(NamedTuple):
    """One message as it was sent: equal to the tuple of its role and its text."""

    role: str
    """`"user"` or `"model"`; of other APIs than GPROChat's also `"system"`."""
    text: str


@dataclass(slots=True)
class Request:
    """What the site was asked. Its `repr` shows neither prompt nor password."""

    number: int
    """0 for the first that the site let in; those it refused of itself have no number: -1."""
    path: str
    """Of its URL."""
    api: Api
    """The API that it speaks, as its path tells: `"gprochat"`, `"openai"` or `"gemini"`."""
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name."""
    body: Mapping[str, Any] = field(repr=False)
    """The JSON object that was sent; empty if it was none."""
    messages: tuple[Turn, ...] = field(repr=False)
    """The history, oldest first, whatever the API; before it the system text, if there is one."""
    signature_ok: bool
    """Whether it was signed with the site's secret key; True for an API without signatures."""
    password_ok: bool
    """Whether it brought the site's password, or the site has none. Other APIs than GPROChat's
    bring it as their key; the key of a site with a secret key alone is that."""
    time: float
    """When it had arrived, by the event loop's clock."""
    outcome: Outcome = "running"
    """What became of it: `"left"` if the client closed the connection before the end of the reply,
    `"dropped"` if the site did, `"failed"` by a `Fail`, `"refused"` by an error answer."""

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return self.messages[-1].text if self.messages else ""
