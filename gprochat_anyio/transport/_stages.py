"""The stages of an exchange, by which its caller sets deadlines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Stage = Literal["connect", "send", "read"]
OnStage = Callable[[Stage], None]
"""Called at the start of each stage. Before "connect" a request waits for a connection slot."""
