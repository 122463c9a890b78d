"""The token usage of a reply."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """The token counts of a request, as the API reports them."""

    input_tokens: int
    """Tokens of the prompt, including the history and the system message."""
    output_tokens: int
    """Tokens of the reply, including hidden reasoning if the API counts it."""
