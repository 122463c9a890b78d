"""Validated options of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Arguments of `run_batch` that select prompts and end the run.

    :raises ValueError: If one is invalid. The message names it.
    """

    retry_failed: bool
    any_site: bool
    give_up_after: int | None
    limit: int | None

    def __post_init__(self) -> None:
        for name in ("give_up_after", "limit"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number, at least 1, or None")
