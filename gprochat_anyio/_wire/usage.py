"""The tokens that a reply took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a reply took, as its API counts them."""

    input_tokens: int
    """Of the prompt, the history and the system text included."""
    output_tokens: int
    """Of the reply, reasoning that is not shown included where the API counts it."""
