"""Requests that a scripted site has received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

Api: TypeAlias = Literal["gprochat", "openai", "gemini"]
Outcome: TypeAlias = Literal["running", "complete", "left", "dropped", "refused", "failed"]


class Turn(NamedTuple):
    """One message as it was sent. It equals the tuple of its role and its text."""

    role: str
    """`"user"` or `"model"`. In other APIs than GPROChat's, also `"system"`."""
    text: str


@dataclass(slots=True)
class Request:
    """A request to the site. Its `repr` hides the prompt and the password."""

    number: int
    """The index among the requests that the site has accepted, from 0. -1 for a refused request."""
    path: str
    """The path of the URL."""
    api: Api
    """The API of the path: `"gprochat"`, `"openai"` or `"gemini"`."""
    headers: Mapping[str, str] = field(repr=False)
    """The header fields by lower-case name."""
    body: Mapping[str, Any] = field(repr=False)
    """The JSON object of the body. Empty if the body is anything else."""
    messages: tuple[Turn, ...] = field(repr=False)
    """The history in every API, oldest first, after the system message if there is one."""
    signature_ok: bool
    """True if the request is signed with the site's secret key, or its API has no signatures."""
    password_ok: bool
    """True if the request has the site's password, or the site has none. In other APIs than
    GPROChat's, the password is the API key, or the secret key if the site has only that."""
    time: float
    """The time of arrival, by the event loop's clock."""
    outcome: Outcome = "running"
    """The outcome: `"left"` if the client closed the connection before the end of the reply,
    `"dropped"` if the site did, `"failed"` after a `Fail`, `"refused"` after an error response."""

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return self.messages[-1].text if self.messages else ""
