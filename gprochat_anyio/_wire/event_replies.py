"""Decoder of replies that are server-sent events, each with a JSON object."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Any

import msgspec

from gprochat_anyio._errors import SiteError

from .api_errors import ApiErrors, error_in
from .error_responses import ERROR_BODY_LIMIT
from .json_body import decode_json
from .server_sent_events import ERROR, MAX_EVENT_SIZE, Event, EventReader
from .usage import Usage

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec for JSON that is invalid or has unexpected types."""

_DONE = b"[DONE]"
_INVALID = object()
_NO_FINISH_REASON = "it ended without a finish reason"


class EventReplyDecoder(ABC):
    """Incremental decoder of one reply. Each API has a subclass that reads its events.

    The finish reason completes the reply, however its body ends. Later events may still report the
    usage; invalid events among them are ignored.

    :param errors: The reader of the API's errors.
    :param max_size: Maximum size of the text in bytes, `None` for no limit. A larger reply fails
        after the text within the limit.
    """

    __slots__ = (
        "_beginning",
        "_closed",
        "_errors",
        "_max_size",
        "_reader",
        "_size",
        "failure",
        "finish_reason",
        "is_whole",
        "usage",
    )

    def __init__(self, errors: ApiErrors, max_size: int | None) -> None:
        self.failure: str | SiteError | None = None
        """The reason why the reply failed, or the error that it reports. Anything fed later is
        dropped."""
        self.finish_reason: str | None = None
        """The finish reason: `"stop"`, `"length"`, or another of the API's names. `None` until it
        is known."""
        self.usage: Usage | None = None
        """The token counts, once the API has reported them."""
        self.is_whole = False
        """True once the reply is complete, even if the connection breaks afterwards."""
        self._errors = errors
        self._max_size = sys.maxsize if max_size is None else max_size
        self._reader = EventReader()
        self._beginning: bytearray | None = bytearray()  # of the body, until the first event
        self._size = 0  # of the text, in bytes
        self._closed = False

    def feed(self, data: bytes) -> str:
        """Return the text that these bytes complete, possibly none."""
        if self._closed:
            return ""
        beginning = self._beginning
        if beginning is not None:
            beginning += data[: ERROR_BODY_LIMIT - len(beginning)]
        text = self._take(self._reader.feed(data))
        if self._reader.too_large:
            self._damaged(f"it has an event of more than {MAX_EVENT_SIZE} bytes")
        return text

    def finish(self) -> str:
        """Return the rest of the text of a complete body, or set `failure`."""
        if self._closed:
            return ""
        text, events = "", self._reader.finish()
        if events and (events[0][1] == _DONE or _json(events[0][1]) is not _INVALID):
            text = self._take(events)  # complete except for its blank line
        elif self._beginning and (value := _json(bytes(self._beginning))) is not _INVALID:
            self._fail(self._errors.in_place_of_stream(value))
        if not self._closed:
            self._damaged(_NO_FINISH_REASON)
        return text

    def cut(self) -> str:
        """Return no text, because an unfinished event may be incomplete."""
        self._closed = True
        return ""

    @abstractmethod
    def _read(self, data: bytes) -> str:
        """Return the text in an event's data, and record the rest of it."""

    def _object_in(self, data: bytes) -> dict[str, Any]:
        """Return the JSON object of an event that the typed decoder rejects.

        Any other value gives an empty object, after its meaning has been recorded.
        """
        value = _json(data)
        if isinstance(value, dict):
            return value
        if value is _INVALID and data.strip():
            self._damaged("it has an event that is not JSON in UTF-8")
        elif error := error_in(value):
            self._fail(self._errors.in_stream(error))
        return {}

    def _look_for_error(self, data: bytes) -> None:
        """Record the error in an event's data, if there is one."""
        if not self._closed and (error := error_in(self._object_in(data))):
            self._fail(self._errors.in_stream(error))

    def _count(self, input_tokens: int, output_tokens: int) -> None:
        """Record the usage up to this event, if it is valid."""
        if input_tokens >= 0 and output_tokens >= 0:
            self.usage = Usage(input_tokens, output_tokens)

    def _ended(self, reason: str, text: str) -> None:
        """Record the finish reason.

        :param text: The text of the same event.
        """
        self.finish_reason = reason
        if reason == "length" and not (text or self._size):
            what = "reached its token limit before the first text; raise the limit in fields"
            self._fail(self._errors.of_reply(what, code=reason))
        else:
            self.is_whole = True

    def _fail(self, failure: str | SiteError) -> None:
        self.failure = failure
        self.is_whole = False
        self._closed = True

    def _damaged(self, reason: str) -> None:
        """Record that the rest of the reply is unreadable."""
        self._closed = True
        if not self.is_whole:
            self._fail(reason)

    def _take(self, events: list[Event]) -> str:
        """Return the text of events, up to the one that ends the reply."""
        texts = []
        for kind, data in events:
            if kind == ERROR:
                self._fail(self._errors.in_stream(_error_of(data)))
            elif data == _DONE:
                self._damaged(_NO_FINISH_REASON)
            elif text := self._read(data):
                if text.isascii():
                    self._size += len(text)
                else:
                    text = self._measured(text)
                if self._size > self._max_size:
                    text = self._within_limit(text)
                texts.append(text)
            if self._closed:
                break
        if events:
            self._beginning = None
        return "".join(texts)

    def _measured(self, text: str) -> str:
        """Add a text's size to the reply's, and return the valid part of the text."""
        try:
            self._size += len(text.encode())
        except UnicodeEncodeError as error:
            self._fail("it holds a lone surrogate, which is not valid text")
            return self._measured(text[: error.start])
        return text

    def _within_limit(self, text: str) -> str:
        """Return the part of a text that is within the reply's limit."""
        self._fail(f"it is larger than max_reply_size, {self._max_size} bytes")
        encoded = text.encode()
        room = self._max_size - (self._size - len(encoded))
        return encoded[:room].decode(errors="ignore")


def _json(data: bytes) -> Any:
    try:
        return decode_json(data)
    except ValueError:
        return _INVALID


def _error_of(data: bytes) -> dict[str, Any]:
    """Return the error in an event of the type "error", in any of its shapes."""
    value = _json(data)
    if value is _INVALID:
        return {"message": data.decode(errors="replace")}
    return error_in(value) or (value if isinstance(value, dict) else {"message": value})
