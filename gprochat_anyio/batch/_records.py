"""One prompt of a batch: as it is read, and as its line of the output."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, cast

from gprochat_anyio import InvalidPromptError, Reply
from gprochat_anyio._wire.messages import Prompt, checked, history

from ._keys import key_of_bad_item, key_of_bad_line, key_of_messages
from ._lines import LINE_LIMIT, LongLine

Format = Literal["jsonl", "text"]
"""What a line of the input is: a JSON object, or the prompt itself."""

OUR_FIELDS: Final = ["id", "index", "text", "finish_reason", "usage", "error", "timing", "key"]

_MARK: Final = b"\xef\xbb\xbf"
# What JSON leaves as it is, but ends a line for some readers, drives a terminal, or is no text.
_UNESCAPED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(slots=True)
class Record:
    """One prompt, or what should have been one.

    :param index: counts from 0, over all that is not blank
    :param head: the start of its line of the output: a JSON object without its end
    :param key: tells it from other prompts; see `_keys`
    :param prompt: what to ask; None if it is bad
    :param error: why it is bad
    :param line: the line of the input, counted from 1; None if it came from no file
    """

    index: int
    head: str
    key: str
    prompt: Prompt | None = None
    error: InvalidPromptError | None = None
    line: int | None = None


def record_of_line(
    line: bytes | LongLine, *, format: Format, site: str, index: int, number: int
) -> Record:
    """The record of a line that is not blank.

    :param number: of the line, counted from 1
    """
    if isinstance(line, LongLine):
        found: Any = InvalidPromptError(f"longer than {LINE_LIMIT >> 20} MiB; shorten it")
        line = line.digest
    else:
        line = (line.removeprefix(_MARK) if number == 1 else line).rstrip(b"\r")
        found = _found(line, format)
    if isinstance(found, InvalidPromptError):
        record = _bad(index, {}, key_of_bad_line(site, line), found)
    else:
        record = _record(found, site, index, lambda: key_of_bad_line(site, line))
    record.line = number
    if record.error is not None:
        record.error = InvalidPromptError(f"line {number}: {record.error}")
    return record


def record_of_item(item: object, *, site: str, index: int) -> Record:
    """The record of a prompt, or of a mapping with one."""
    fields = cast("Mapping[str, Any]", item if isinstance(item, Mapping) else {"prompt": item})
    return _record(fields, site, index, lambda: key_of_bad_item(site, item))


def line_of_reply(record: Record, reply: Reply) -> bytes:
    """The line of the output, with its end."""
    timing = reply.timing
    seconds = {
        "connect": round(timing.connect, 6),
        "first_chunk": round(timing.first_chunk, 6),
        "total": round(timing.total, 6),
        "chunks": timing.chunks,
        "characters": timing.characters,
        "attempts": timing.attempts,
    }
    usage = None if reply.usage is None else asdict(reply.usage)
    ending = {"finish_reason": reply.finish_reason, "usage": usage}
    return _line(record, {"text": reply.text, **ending, "timing": seconds})


def line_of_error(record: Record, error: Exception) -> bytes:
    """The line of the output, with its end."""
    failure = {
        "type": type(error).__name__,
        "message": str(error),
        "partial_text": getattr(error, "partial_text", ""),
    }
    return _line(record, {"error": failure, "timing": None})


def _line(record: Record, outcome: dict[str, Any]) -> bytes:
    rest = _json({**outcome, "key": record.key})
    line = f"{record.head}, {rest[1:]}\n"
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", line).encode()


def _found(line: bytes, format: Format) -> Mapping[str, Any] | InvalidPromptError:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return InvalidPromptError(f"no UTF-8 text, from byte {error.start} on")
    if format == "text":
        return {"prompt": text}
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return InvalidPromptError(f"no JSON: {error.msg}, at column {error.colno}")
    except (ValueError, RecursionError):  # NaN, a number of 5,000 digits, too deep
        return InvalidPromptError("no JSON that can be read here")
    if not isinstance(fields, dict):
        return InvalidPromptError('not a JSON object; write {"prompt": "..."}')
    return fields


def _record(fields: Mapping[str, Any], site: str, index: int, bad_key: Callable[[], str]) -> Record:
    given = [name for name in ("prompt", "messages") if name in fields]
    if len(given) != 1:
        too_many = ", not both" if given else ""
        error = InvalidPromptError(f'give "prompt" or "messages"{too_many}')
        return _bad(index, fields, bad_key(), error)
    prompt = fields[given[0]]
    if given == ["messages"] and isinstance(prompt, str):
        error = InvalidPromptError('"messages" is a list; a text belongs into "prompt"')
        return _bad(index, fields, bad_key(), error)
    messages = checked(history, prompt)
    if isinstance(messages, InvalidPromptError):
        return _bad(index, fields, bad_key(), messages)
    try:
        head = _head(index, fields)
    except (TypeError, ValueError, RecursionError):
        error = InvalidPromptError("a field that is to be carried over is no JSON value")
        return _bad(index, {}, bad_key(), error)
    return Record(index, head, key_of_messages(site, messages), prompt)


def _bad(index: int, fields: Mapping[str, Any], key: str, error: InvalidPromptError) -> Record:
    try:
        head = _head(index, fields)
    except (TypeError, ValueError, RecursionError):
        head = _head(index, {})
    return Record(index, head, key, error=error)


def _head(index: int, fields: Mapping[str, Any]) -> str:
    head: dict[str, Any] = {"id": fields.get("id"), "index": index}
    for name, value in fields.items():
        if name in {"id", "prompt", "messages"}:
            continue
        while name in OUR_FIELDS or (name in head):
            name = f"input_{name}"  # noqa: PLW2901 - until it is free
        head[name] = value
    return _json(head)[:-1]


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
