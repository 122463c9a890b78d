"""The client's side of HTTP/1.1 (RFC 9112) without I/O: bytes in, one answer out.

llhttp, through httptools, does the parsing, strictly. What it leaves to its user is here: which
transfer codings are understood, interim answers, the end of a body that has no framing, and
bounds on everything that is not body.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import httptools

from ._failures import ProtocolViolation

HEAD_LIMIT = 64 * 1024
"""Bytes that an answer's head may take, interim answers included, and, once the body has begun,
bytes that may arrive without any of it (chunk extensions, trailers)."""

_TAIL = 128

Framing = Literal["chunked", "length", "close", "none"]


class AnswerParser:
    """Parses the answer to one request.

    :param bodiless: whether the request's method (HEAD, CONNECT) makes the answer end at its head
    """

    __slots__ = (
        "_barren",
        "_bodiless",
        "_interim",
        "_parser",
        "_tail",
        "complete",
        "framing",
        "head_complete",
        "headers",
        "keep_alive",
        "on_body",
        "on_chunk_complete",
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
        """The head's fields in their order, names as they came."""
        self.framing: Framing = "none"
        self.keep_alive = False
        """Whether the peer lets the connection be used again, once `complete`."""
        self.head_complete = False
        self.complete = False
        self.pieces: list[bytes] = []
        """Body since the last `take`; an empty piece ends an HTTP chunk."""
        self._bodiless = bodiless
        self._interim = False
        self.surplus = False
        """Whether the peer sent more than the answer."""
        self._barren = 0
        self._tail = b""
        self.received = False
        """Whether any byte of it has come."""
        self.violation: ProtocolViolation | None = None
        """What is wrong behind the pieces that were parsed; `take` raises it after them."""
        # Bound methods of C objects: a chunk costs no Python call.
        self.on_body = self.pieces.append
        self.on_chunk_complete = partial(self.pieces.append, b"")
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take in what was read.

        :raises ProtocolViolation: for a head that is no HTTP/1.1, or out of bounds; what is wrong
            behind the head is raised by `take`, and here if more is fed
        """
        if self.violation is not None:
            raise self.violation
        if not self.received and data[:1] in b"\r\n":  # llhttp would skip empty lines
            raise ProtocolViolation("the answer is no valid HTTP/1.1: a line break comes first")
        self.received = True
        self._tail = data[-_TAIL:] if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise ProtocolViolation("the peer switched protocols without being asked") from None
        except httptools.HttpParserError as error:
            self._refuse(error)
        if self.framing == "none" and self.pieces:
            self.surplus = True
            self.pieces.clear()
        if self.pieces:
            self._barren = 0
        elif not self.complete:
            self._barren += len(data)
            if self._barren > HEAD_LIMIT:
                what = "trailers or chunk extensions" if self.head_complete else "head"
                raise ProtocolViolation(f"the answer's {what} takes more than {HEAD_LIMIT} bytes")

    def feed_eof(self) -> bool:
        """The peer sent its last byte: whether that ends the answer."""
        if self.head_complete and self.framing == "close":
            self.complete = True
        return self.complete

    def take(self) -> list[bytes]:
        """The pieces of body parsed since the last time.

        :raises ProtocolViolation: if there are none, and what came behind them was no HTTP/1.1
        """
        if self.violation is not None and not self.pieces:
            raise self.violation
        pieces = self.pieces[:]
        self.pieces.clear()
        return pieces

    def release(self) -> None:
        """Break the reference cycles, as that with the C parser; nothing can be fed any more."""
        self.violation = None
        del self._parser

    def open_chunk_size(self, received: bytes) -> int | None:
        """The size of the HTTP chunk that is being received, None where that is not known.

        :param received: what has been parsed of that chunk so far; short, and not empty
        """
        if self.framing != "chunked":
            return None
        head, _, _ = self._tail.rpartition(received)
        before, _, line = head.removesuffix(b"\r\n").rpartition(b"\r\n")
        return int(line.partition(b";")[0], 16) if before else None

    @property
    def reusable(self) -> bool:
        """Whether the connection is fit for another request."""
        return self.complete and self.keep_alive and not self.surplus

    def on_message_begin(self) -> None:
        if self.complete:  # stops the parser, or its body would pass for this answer's
            raise ProtocolViolation("the peer sent more than its answer")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:  # else a trailer, and nobody asked for one
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.version = self._parser.get_http_version()
        self._interim = 100 <= self.status < 200
        if self._interim:
            if self.status > 103 and self._framing() != "close":  # of the others llhttp takes none
                raise ProtocolViolation("an interim answer has a body, which is not for it to have")
            return
        self.head_complete = True
        self.framing = self._framing()
        faulty = self.version == "1.0" and self.framing == "chunked"  # RFC 9112, section 6.1
        self.keep_alive = (
            self._parser.should_keep_alive() and self.framing != "close" and not faulty
        )
        self.complete = self._bodiless

    def on_message_complete(self) -> None:
        if self._interim:
            self.headers.clear()
            self.reason = b""
        else:
            self.complete = True

    def _refuse(self, error: httptools.HttpParserError) -> None:
        if self.complete:  # what is surplus only spoils the connection
            self.surplus = True
            return
        if isinstance(error.__context__, ProtocolViolation):
            raise error.__context__ from None
        violation = ProtocolViolation(f"the answer is no valid HTTP/1.1: {error}")
        if not self.head_complete:
            raise violation from None
        self.violation = violation

    def _framing(self) -> Framing:
        if self.version not in ("1.0", "1.1"):
            raise ProtocolViolation(f"the answer is of HTTP/{self.version}")
        codings = [v.strip().lower() for n, v in self.headers if n.lower() == b"transfer-encoding"]
        if self._bodiless or self.status in (204, 304):
            return "none"
        if codings:
            if codings != [b"chunked"]:
                raise ProtocolViolation("the answer's transfer coding is not `chunked` alone")
            return "chunked"
        if any(n.lower() == b"content-length" for n, _ in self.headers):
            return "length"
        return "close"
