"""Tags of prompts that share a channel of the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

_Result = TypeVar("_Result")

UNTAGGED: Final[Any] = object()
"""Stands for a `tag` that was not given. None is a tag."""

_LIMIT = 100
"""Characters of a tag that a note shows."""


def tagged(put: Callable[[Any], _Result], tag: object) -> Callable[[str], _Result]:
    """Return a function that puts `(tag, text)` for a text."""

    def put_tagged(text: str) -> _Result:
        return put((tag, text))

    return put_tagged


def note_of(tag: object) -> str:
    """Return a note that tells an error's prompt by its tag."""
    return f"This was the prompt with the tag {_shown(tag)}."


def _shown(tag: object) -> str:
    try:
        shown = repr(tag)
    except Exception:  # noqa: BLE001 - a tag's failure must not replace the error that has the note
        return f"<{type(tag).__name__}>"
    return shown if len(shown) <= _LIMIT else f"{shown[: _LIMIT - 1]}…"
