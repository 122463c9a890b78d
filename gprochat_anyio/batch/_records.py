"""Records of a batch: prompts as they are read, and their lines of the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, cast

from gprochat_anyio import InvalidPromptError, Reply
from gprochat_anyio._wire.messages import FieldedPrompt, Prompt, checked, history

from ._keys import key_of_bad_item, key_of_bad_line, key_of_messages, key_of_request
from ._line_json import JSONFields, decode_fields, encode_fields, encode_line
from ._lines import LINE_LIMIT, LongLine
from ._openai_format import error_fields, line_id, read_request, reply_fields

Format = Literal["jsonl", "text", "openai"]
"""Format of the input's lines: JSON objects, prompts, or requests of OpenAI's batch API. The latter
also selects the format of the output."""

OUR_FIELDS: Final = (
    *("id", "index", "text", "finish_reason", "usage", "error", "timing", "key", "site", "retried"),
)

_Place = tuple[int, str | None]
"""The index of a prompt, and the name of its file if there are several."""

_MARK: Final = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Record:
    """Prompt of a batch, or an invalid line or item.

    :param index: Index among the records of its source, counted from 0. Blank lines do not count.
    :param head: The start of the output line: a JSON object without its closing brace.
    :param site: The name of the site in the key.
    :param key_at: Returns the record's key at a site. See `_keys`.
    :param prompt: The prompt. `None` if the record is invalid.
    :param error: The reason why the record is invalid.
    :param line: The number of the input line, counted from 1. `None` without a file.
    :param openai: Whether the output line is one of OpenAI's batch files.
    :param replaces: The key of a failure whose line this record's line replaces.
    """

    index: int
    head: bytes
    site: str
    key_at: Callable[[str], str]
    prompt: Prompt | None = None
    error: InvalidPromptError | None = None
    line: int | None = None
    openai: bool = False
    replaces: str | None = None
    key: str = ""
    """The record's key at its site."""

    def __post_init__(self) -> None:
        self.key = self.key_at(self.site)


def record_of_line(
    line: bytes | LongLine,
    *,
    format: Format,
    site: str,
    index: int,
    number: int,
    file: str | None = None,
) -> Record:
    """Return the record of a line that is not blank.

    :param number: The line's number, counted from 1.
    :param file: The name of the line's file, if there are several.
    """
    if isinstance(line, LongLine):
        found: Any = InvalidPromptError(f"longer than {LINE_LIMIT >> 20} MiB; shorten it")
        data = line.digest
    else:
        data = (line.removeprefix(_MARK) if number == 1 else line).rstrip(b"\r")
        found = _text_on(data) if format == "text" else decode_fields(data)
    builder = _RecordBuilder(site, index, file, lambda site: key_of_bad_line(site, data))
    if isinstance(found, InvalidPromptError):
        record = builder.bad({}, found, openai=format == "openai")
    else:
        record = builder.record(found, openai=format == "openai")
    record.line = number
    if record.error is not None:
        place = f"line {number}" if file is None else f"{file}, line {number}"
        record.error = InvalidPromptError(f"{place}: {record.error}")
    return record


def record_of_item(item: object, *, site: str, index: int, format: Format | None = None) -> Record:
    """Return the record of a prompt, or of a mapping with a prompt."""
    fields = cast("Mapping[str, Any]", item if isinstance(item, Mapping) else {"prompt": item})
    builder = _RecordBuilder(site, index, None, lambda site: key_of_bad_item(site, item))
    return builder.record(fields, openai=format == "openai")


def line_of_reply(record: Record, reply: Reply) -> bytes:
    """Return the output line of a reply, with its end."""
    if record.openai:
        fields = record.prompt.fields if isinstance(record.prompt, FieldedPrompt) else {}
        return _line(record, reply_fields(reply, record.key, fields.get("model")))
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
    """Return the output line of a failure, with its end."""
    if record.openai:
        return _line(record, error_fields(error, record.key))
    failure = {
        "type": type(error).__name__,
        "message": str(error),
        "partial_text": getattr(error, "partial_text", ""),
    }
    return _line(record, {"error": failure, "timing": None})


def _line(record: Record, outcome: dict[str, Any]) -> bytes:
    outcome["key"] = record.key
    outcome["site"] = record.site
    if record.replaces is not None:
        outcome["retried"] = record.replaces  # the last field: see `_recovery`
    return encode_line(record.head, outcome)


def _text_on(line: bytes) -> Mapping[str, Any] | InvalidPromptError:
    try:
        return JSONFields(prompt=line.decode())
    except UnicodeDecodeError as error:
        return InvalidPromptError(f"not UTF-8: invalid byte at offset {error.start}")


class _RecordBuilder:
    """Builder of the record at one position of a source.

    :param file: The name of the source's file, if there are several.
    :param bad_key_at: Returns the key of an invalid record at a site.
    """

    __slots__ = ("_bad_key_at", "_file", "_index", "_site")

    def __init__(
        self, site: str, index: int, file: str | None, bad_key_at: Callable[[str], str]
    ) -> None:
        self._site = site
        self._index = index
        self._file = file
        self._bad_key_at = bad_key_at

    def record(self, fields: Mapping[str, Any], *, openai: bool) -> Record:
        return self._request(fields) if openai else self._prompt(fields)

    def bad(self, fields: Mapping[str, Any], error: InvalidPromptError, *, openai: bool) -> Record:
        if openai:
            record = Record(self._index, b"", self._site, self._bad_key_at, error=error)
            custom_id = fields.get("custom_id")
            return self._with_openai(record, custom_id if isinstance(custom_id, str) else None)
        try:
            head = self._head(fields)
        except (TypeError, ValueError, RecursionError):
            head = self._head(JSONFields())
        return Record(self._index, head, self._site, self._bad_key_at, error=error)

    def _prompt(self, fields: Mapping[str, Any]) -> Record:
        given = [name for name in ("prompt", "messages") if name in fields]
        if len(given) != 1:
            more = ", not both" if given else ""
            if "custom_id" in fields and "body" in fields:
                more = '; for a file of OpenAI\'s batch API, give the format "openai"'
            error = InvalidPromptError(f'give "prompt" or "messages"{more}')
            return self.bad(fields, error, openai=False)
        prompt = fields[given[0]]
        if given == ["messages"] and isinstance(prompt, str):
            error = InvalidPromptError('"messages" must be a list; give a text as "prompt"')
            return self.bad(fields, error, openai=False)
        messages = checked(history, prompt)
        if isinstance(messages, InvalidPromptError):
            return self.bad(fields, messages, openai=False)
        try:
            head = self._head(fields)
        except (TypeError, ValueError, RecursionError):
            error = InvalidPromptError("a field that is copied to the output is not a JSON value")
            return self.bad({}, error, openai=False)
        return Record(
            self._index, head, self._site, lambda site: key_of_messages(site, messages), prompt
        )

    def _request(self, fields: Mapping[str, Any]) -> Record:
        request = read_request(fields)
        if isinstance(request, InvalidPromptError):
            return self.bad(fields, request, openai=True)

        def key_at(site: str) -> str:
            return key_of_request(site, request.custom_id, request.messages, request.fields)

        prompt = request.messages
        if request.fields:
            prompt = FieldedPrompt(request.messages, request.fields)
        record = Record(self._index, b"", self._site, key_at, prompt)
        return self._with_openai(record, request.custom_id)

    def _head(self, fields: Mapping[str, Any]) -> bytes:
        head: dict[str, Any] = {"id": fields.get("id"), "index": self._index}
        if self._file is not None:
            head["file"] = self._file
        for name, value in fields.items():
            if name in {"id", "prompt", "messages"}:
                continue
            while name in OUR_FIELDS or (name in head):
                name = f"input_{name}"  # noqa: PLW2901 - until it is free
            head[name] = value
        return encode_fields(head, known=isinstance(fields, JSONFields))[:-1]

    def _with_openai(self, record: Record, custom_id: str | None) -> Record:
        """Return the record, with an output line of OpenAI's batch files."""
        head = {"id": line_id(record.key), "custom_id": custom_id, "index": self._index}
        if self._file is not None:
            head["file"] = self._file
        record.head = encode_fields(head, known=True)[:-1]
        record.openai = True
        return record
