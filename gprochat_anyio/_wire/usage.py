"""Tokens that a request took, as an API counts them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request and of its reply.

    :param input_tokens: of the history that was sent
    :param output_tokens: of the reply, reasoning included
    """

    input_tokens: int
    output_tokens: int
