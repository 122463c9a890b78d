"""The stages of an exchange, for its caller's deadlines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Stage = Literal["connect", "send", "read"]
OnStage = Callable[[Stage], None]
"""A callback for the start of each stage. Before "connect", a request waits for a slot."""
