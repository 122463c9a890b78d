"""Decoder of GPROChat replies: strict UTF-8, and detection of the failure marker.

If the model fails after the response's head was sent, the site ends the reply with
`Internal server error`. Proxies merge it with the preceding chunk, so chunk boundaries carry no
information. A reply whose text ends with exactly these words has failed.
"""

from __future__ import annotations

import codecs
import sys

from .gprochat import FAILURE_MARKER
from .usage import Usage

_FIRST = FAILURE_MARKER[:1]  # unique in the marker, so a tail can begin at one place only
_LENGTH = len(FAILURE_MARKER)


class TextDecoder:
    """Incremental decoder of one reply. It holds back only a tail that may become the marker.

    :param failure_marker: Detect the marker. If False, it is ordinary text.
    :param max_size: Maximum size of the body in bytes, `None` for no limit. A larger reply fails
        after the text within the limit.
    """

    __slots__ = ("_failure_marker", "_held", "_max_size", "_room", "_undecoded", "failure")

    finish_reason: str | None = None
    usage: Usage | None = None
    """Always `None`, like `finish_reason`: the API reports neither."""
    is_whole = False
    """False, because only the end of the body completes the reply."""

    def __init__(self, *, failure_marker: bool = True, max_size: int | None = None) -> None:
        self.failure: str | None = None
        """The reason why the reply failed. Anything fed later is dropped."""
        self._failure_marker = failure_marker
        self._max_size = max_size
        self._room = sys.maxsize if max_size is None else max_size
        self._held = b""  # the marker, or its beginning
        self._undecoded = b""  # the beginning of a character

    def feed(self, data: bytes) -> str:
        """Return the text that these bytes complete. It may be empty."""
        if self.failure is not None:
            return ""
        self._room -= len(data)
        if self._room < 0:
            text = self._decode(self._release() + data[: self._room])
            self._fail(f"it is larger than max_reply_size, {self._max_size} bytes")
            return text
        if self._held:
            data = self._release() + data
        if self._failure_marker:
            start = data.rfind(_FIRST, -_LENGTH)
            if start >= 0 and FAILURE_MARKER.startswith(data[start:]):
                data, self._held = data[:start], data[start:]
        return self._decode(data)

    def finish(self) -> str:
        """Return the rest of the text of a complete body, or set `failure`."""
        held = self._release()
        if held == FAILURE_MARKER:
            self._fail(
                "the site reported that its model failed (if the model says "
                f"`{FAILURE_MARKER.decode()}` itself, set failure_marker=False)"
            )
            return ""
        text = self._decode(held)
        if self._undecoded:
            self._fail("its last character is cut off")
        return text

    def cut(self) -> str:
        """Return the rest of the text of a body that was cut off. A complete marker is dropped."""
        held = self._release()
        return self._decode(held) if held != FAILURE_MARKER else ""

    def _release(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _decode(self, data: bytes) -> str:
        if self._undecoded:
            data = self._undecoded + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as error:
            self._fail("it holds bytes that are not UTF-8")
            text, used = data[: error.start].decode(), len(data)
        self._undecoded = data[used:]
        return text

    def _fail(self, reason: str) -> None:
        self._held = b""
        self.failure = self.failure or reason
