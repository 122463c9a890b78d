"""Tags, which identify prompts that share a caller's channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

_Result = TypeVar("_Result")

UNTAGGED: Final[Any] = object()
"""The default of `tag` arguments, because `None` is a valid tag."""

_LIMIT = 100
"""Maximum number of characters of a tag in a note."""


def tagged(put: Callable[[Any], _Result], tag: object) -> Callable[[str], _Result]:
    """Return a function that calls `put` with `(tag, text)`."""

    def put_tagged(text: str) -> _Result:
        return put((tag, text))

    return put_tagged


def note_of(tag: object) -> str:
    """Return an error's note, which identifies its prompt by the tag."""
    return f"This was the prompt with the tag {_shown(tag)}."


def _shown(tag: object) -> str:
    try:
        shown = repr(tag)
    except Exception:  # noqa: BLE001 - a tag's failure must not replace the request's error
        return f"<{type(tag).__name__}>"
    return shown if len(shown) <= _LIMIT else f"{shown[: _LIMIT - 1]}…"
