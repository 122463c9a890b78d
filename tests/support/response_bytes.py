"""Responses as bytes, and parts of them, encoded like those of the testing kit's sites."""

from __future__ import annotations

from gprochat_anyio.testing._steps import LAST_CHUNK, REPLY_HEAD, answer, chunk, reply_head

__all__ = ["LAST_CHUNK", "REPLY_HEAD", "answer", "chunk", "reply_head"]
