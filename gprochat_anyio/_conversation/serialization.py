"""Serialization of conversations as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gprochat_anyio._errors import InvalidPromptError
from gprochat_anyio._wire.messages import Message

MAX_MESSAGES = 99
"""Default maximum number of messages to send, which is that of the original site's page."""

_VERSION = 1
_FIELDS = {"version", "system", "max_messages", "messages"}


class Saved(NamedTuple):
    """The serializable parts of a conversation."""

    system: str | None
    max_messages: int | None
    messages: tuple[Message, ...]


def write(saved: Saved) -> str:
    """Serialize a conversation as JSON in ASCII."""
    return json.dumps(
        {
            "version": _VERSION,
            "system": saved.system,
            "max_messages": saved.max_messages,
            "messages": [
                {"role": message.role, "parts": [{"text": message.content}]}
                for message in saved.messages
            ],
        }
    )


def read(data: object) -> Saved | ValueError:
    """Parse a saved conversation, or return the error, for the caller to raise.

    The traceback then has no frame that holds the data.
    """
    try:
        return _saved(data)
    except ValueError as error:
        error.__context__ = None
        return error.with_traceback(None)


def _saved(data: object) -> Saved:
    if isinstance(data, str | bytes | bytearray):
        data = _parsed(data)
    if isinstance(data, Sequence):
        data = {"version": _VERSION, "messages": [_from_page(message) for message in data]}
    if not isinstance(data, Mapping):
        raise ValueError(
            f"a conversation must be an object with version and messages, not {type(data).__name__}"
        )
    version = data.get("version")
    if type(version) is not int or version < 1:
        raise ValueError("version is missing or invalid; save conversations with to_json()")
    if version > _VERSION:
        raise ValueError(
            f"version {version} is newer than this library, which reads {_VERSION}: update it"
        )
    _check_fields("a conversation", data, _FIELDS)
    system = data.get("system")
    if system is not None:
        system = _message("system", "system", system).content
    messages = _list("messages", data.get("messages"))
    return Saved(
        system, checked_count(data.get("max_messages", MAX_MESSAGES)), tuple(_messages(messages))
    )


def _from_page(message: Any) -> Any:
    """Convert a message of the original site's page to the format of `to_json`. Return any other
    value unchanged."""
    if not isinstance(message, Mapping) or message.keys() != {"role", "content"}:
        return message
    role = "model" if message["role"] == "assistant" else message["role"]
    return {"role": role, "parts": [{"text": message["content"]}]}


def _parsed(data: str | bytes | bytearray) -> object:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is not UTF-8"
    except RecursionError:
        place = "it is nested too deeply"
    raise ValueError(f"this is not JSON: {place}")


def _messages(messages: Sequence[Any]) -> Iterator[Message]:
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise ValueError(f"{place} must be an object with role and parts")
        _check_fields(place, message, {"role", "parts"})
        role = ("user", "model")[number % 2]
        if message.get("role") != role:
            raise ValueError(f"{place}.role must be {role!r}: the two alternate, the user's first")
        parts = _list(f"{place}.parts", message.get("parts"))
        texts = [_text(f"{place}.parts[{i}]", part) for i, part in enumerate(parts)]
        yield _message(place, role, "".join(texts))
    if len(messages) % 2:
        raise ValueError(
            f"messages ends with a question that has no reply, messages[{len(messages) - 1}]; "
            "remove it, and ask it with stream() or ask()"
        )


def _text(place: str, part: object) -> str:
    if not isinstance(part, Mapping) or part.keys() != {"text"}:
        raise ValueError(f'{place} must be {{"text": ...}}, and nothing else')
    if not isinstance(part["text"], str):
        raise ValueError(f"{place}.text must be a string, not {type(part['text']).__name__}")
    return part["text"]


def _message(place: str, role: str, text: object) -> Message:
    if not isinstance(text, str):
        raise ValueError(f"{place} must be a string, not {type(text).__name__}")
    try:
        return Message(role, text)
    except InvalidPromptError as error:
        raise ValueError(f"{place}: {error}") from None


def _check_fields(place: str, data: Mapping[Any, Any], known: set[str]) -> None:
    if not data.keys() <= known:
        raise ValueError(
            f"{place} has fields that would be lost; it may have {', '.join(sorted(known))}"
        )


def _list(place: str, data: object) -> Sequence[Any]:
    if not isinstance(data, Sequence) or isinstance(data, str | bytes | bytearray):
        raise ValueError(f"{place} must be a list")
    return data


def checked_count(max_messages: Any) -> int | None:
    """Check a maximum number of messages, and return it.

    :raises ValueError: If it is invalid.
    """
    if max_messages is not None and (type(max_messages) is not int or max_messages < 1):
        raise ValueError("max_messages must be an int of at least 1, or None for no limit")
    return max_messages
