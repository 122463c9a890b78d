"""HTTP/1.1 response parsing without I/O (RFC 9112): bytes in, one response out.

llhttp parses in its strict mode, through httptools. This module adds the rules that llhttp leaves
to its user: accepted versions and transfer codings, interim responses, folded header lines, bodies
that end with the connection, and size limits outside of the body.
"""

from __future__ import annotations

import re
from typing import Literal, NoReturn

import httptools

from ._failures import ProtocolViolation

HEAD_LIMIT = 64 * 1024
"""Maximum size of the head in bytes, including interim responses. After the head: maximum number of
bytes between two pieces of the body (chunk extensions, trailers)."""

Framing = Literal["chunked", "length", "close", "none"]

_PROTOCOL = b"HTTP/"
_TAB = 0x09
_control_character = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_open_line_break = re.compile(rb"\r(?:\n\r?)?\Z")  # ambiguous until the next byte


class ResponseParser:
    """Parser of the response to one request.

    :param bodiless: True if the response ends with its head, because of the request's method (HEAD,
        CONNECT).
    """

    __slots__ = (
        "_barren",
        "_bodiless",
        "_held",
        "_parser",
        "_position",
        "complete",
        "framing",
        "head_complete",
        "headers",
        "keep_alive",
        "on_body",
        "pieces",
        "reason",
        "received",
        "status",
        "surplus",
        "version",
        "violation",
    )

    def __init__(self, *, bodiless: bool = False) -> None:
        self.status = 0
        self.reason = b""
        self.version = ""
        self.headers: list[tuple[bytes, bytes]] = []
        """The header fields in order, with their names as sent."""
        self.framing: Framing = "none"
        """The rule that determines the end of the body, once `head_complete` is True."""
        self.keep_alive = False
        """True if the peer allows another request on this connection."""
        self.head_complete = False
        self.complete = False
        self.surplus = False
        """True if the peer sent data after the response."""
        self.pieces: list[bytes] = []
        """Pieces of the body since the last `take`. Their boundaries have no meaning."""
        self.received = False
        """True once at least one byte has arrived."""
        self.violation: ProtocolViolation | None = None
        """The error after the pieces. `take` raises it once they have been taken."""
        self._bodiless = bodiless
        self._barren = 0
        self._held = b""  # received, but not passed to llhttp yet
        self._position: Literal["start", "status line", "fields"] = "start"
        self.on_body = self.pieces.append  # a C function, so that pieces cost no Python call
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse data, at least one byte.

        :raises ProtocolViolation: If the head is invalid or too large, or if data is fed after an
            error. The first error after the head is raised by `take`, in order.
        """
        if self.violation is not None:
            raise self.violation
        if self.complete:
            self.surplus = True
            return
        try:
            if self.head_complete:
                self._parser.feed_data(data)
            else:
                self._feed_head(data)
        except httptools.HttpParserError as error:
            self._refuse(error)
        if self.pieces:
            self._barren = 0
        elif not self.complete:
            self._barren += len(data)
            if self._barren > HEAD_LIMIT:
                what = "trailers or chunk extensions" if self.head_complete else "head"
                self._fail(f"the response's {what} is larger than {HEAD_LIMIT} bytes")

    def feed_eof(self) -> bool:
        """Process the end of the stream. Return True if the response is complete."""
        if self.head_complete and self.framing == "close":
            self.complete = True
        return self.complete

    def take(self) -> list[bytes]:
        """Return the pieces of the body since the last call.

        :raises ProtocolViolation: If there are none, and the data after them was invalid.
        """
        if self.violation is not None and not self.pieces:
            raise self.violation
        pieces = self.pieces[:]
        self.pieces.clear()
        return pieces

    def release(self) -> None:
        """Break the reference cycle with the C parser. No data may be fed afterwards."""
        self.violation = None
        del self._parser

    @property
    def reusable(self) -> bool:
        """True if the connection can be used for another request."""
        return self.complete and self.keep_alive and not self.surplus

    # -- callbacks of httptools

    @property
    def announced_status(self) -> int:
        """The status, as soon as the status line has arrived. 0 before that."""
        return self.status or self._parser.get_status_code()

    def on_message_begin(self) -> None:
        if self.complete:  # stop llhttp, which would add the next body to this response
            raise ProtocolViolation("the peer sent more than its response")

    def on_status(self, reason: bytes) -> None:
        if not reason.isalpha() and _control_character.search(reason):
            raise ProtocolViolation("the response's reason phrase contains a control character")
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_complete:  # a trailer, which is ignored
            return
        if (
            _TAB in value and name.lower() == b"transfer-encoding"
        ):  # llhttp does not see `chunked` then
            raise ProtocolViolation("the response's transfer coding contains a tab")
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        self.status = status = parser.get_status_code()
        self.version = version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ProtocolViolation(f"the response's version is HTTP/{version}")
        if status < 200:
            self._check_interim()
            return
        bodiless = self._bodiless or status in (204, 304)
        self.framing = framing = "none" if bodiless else self._announced_framing()
        self.head_complete = True
        self.complete = bodiless
        self.keep_alive = (
            parser.should_keep_alive()
            and framing != "close"
            and not (framing == "chunked" and version == "1.0")  # RFC 9112, section 6.1
        )

    def on_message_complete(self) -> None:
        self.complete = self.head_complete

    # -- rules that llhttp leaves to its user

    def _feed_head(self, data: bytes) -> None:
        """Unfold the lines of a head (RFC 9112, section 5.2), and feed it and the data after it.

        llhttp's own lenient mode for folds would also accept NUL in a field. Each line break of a
        fold and the following blank become one space, wherever the data is split.
        """
        self.received = True
        data, self._held = self._held + data, b""
        while data and not self.head_complete:
            if self._position == "start" and not data.startswith(_PROTOCOL):
                if not _PROTOCOL.startswith(data):  # llhttp accepts RTSP, ICE and empty lines
                    self._fail("the response is not valid HTTP/1.1: it does not start with `HTTP/`")
                self._held = data
                return
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                head = _open_line_break.sub(b"", data)
                self._held = data[len(head) :]
                self._parser.feed_data(self._unfold(head))
                if self._position != "fields":
                    self._position = "fields" if b"\r\n" in head else "status line"
                return
            self._parser.feed_data(self._unfold(data[:end]))
            self._position = "start"
            data = data[end:]
        if data and self.complete:
            self.surplus = True
        elif data:
            self._parser.feed_data(data)

    def _unfold(self, head: bytes) -> bytes:
        if head.find(b"\r\n ") < 0 and (_TAB not in head or head.find(b"\r\n\t") < 0):
            return head
        # a blank after the status line is not a fold; llhttp rejects it
        start = 0 if self._position == "fields" else head.find(b"\r\n") + 2
        return head[:start] + head[start:].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")

    def _check_interim(self) -> None:
        """Drop the head of an interim response, or reject it."""
        if self.status < 100:
            raise ProtocolViolation("the response's status is below 100")
        if self.status == 101:
            raise ProtocolViolation("the peer switched protocols without being asked")
        if (
            self.status > 103 and self._announced_framing() != "close"
        ):  # up to 103, the body is never read
            raise ProtocolViolation("an interim response announces a body")
        self.headers.clear()
        self.reason = b""

    def _announced_framing(self) -> Framing:
        framing: Framing = "close"
        for name, value in self.headers:
            lowered = name.lower()
            if lowered == b"transfer-encoding":
                if framing == "chunked" or value.lower() != b"chunked":
                    raise ProtocolViolation("the response's transfer coding is not `chunked` alone")
                framing = "chunked"
            elif lowered == b"content-length":  # never with chunked; llhttp rejects both together
                framing = "length"
        return framing

    def _refuse(self, error: httptools.HttpParserError) -> None:
        if self.complete:  # data after the response only prevents reuse of the connection
            self.surplus = True
            return
        self.violation = (
            error.__context__
            if isinstance(error.__context__, ProtocolViolation)  # raised by a callback
            else ProtocolViolation(f"the response is not valid HTTP/1.1: {error}")
        )
        if not self.head_complete:
            raise self.violation from None

    def _fail(self, message: str) -> NoReturn:
        self.violation = ProtocolViolation(message)
        raise self.violation
