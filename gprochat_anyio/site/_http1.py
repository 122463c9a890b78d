"""The server's side of HTTP/1.1, without I/O: h11, and stricter checks.

h11 accepts some framing that other programs interpret differently, which makes request smuggling
possible behind a proxy. So every head, and every line of a chunked body, is checked before h11
receives it. h11 receives no byte beyond the current request.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, TypeAlias

import h11

from ._chunked_body import ChunkedBody

MAX_HEAD: Final = 16 * 1024
"""Maximum size of a request's head, and of a chunked body's trailers, in bytes."""

_HOST: Final = re.compile(rb"([\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?]*)")
_BLANK_LINE: Final = b"\r\n\r\n"

Fields: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Header fields. Their names are in lower case."""


class Http1:
    """The HTTP state of one connection: it parses requests and serializes responses."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._received = bytearray()  # but not yet passed to h11
        self._blank = False  # a blank line preceded the head
        self._scanned = 0  # bytes of an incomplete head already searched for its end
        self._left = 0  # remaining bytes of a body that is not chunked
        self._chunks: ChunkedBody | None = None
        self._persistent = True

    @property
    def pending(self) -> int:
        """Number of bytes received that are not part of an event yet."""
        return len(self._received)

    @property
    def waits_for_continue(self) -> bool:
        """True while the client waits for 100 Continue before it sends its body."""
        return self._h11.they_are_waiting_for_100_continue

    @property
    def can_refuse(self) -> bool:
        """True until a response has begun."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def receive(self, data: bytes) -> None:
        """Receive bytes from the client."""
        self._received += data

    def next_event(self) -> h11.Request | h11.Data | h11.EndOfMessage | None:
        """Return the next part of the request, or `None` if more bytes are needed.

        A pipelined request is read after `next_request`.

        :raises h11.RemoteProtocolError: If the request is invalid. `error_status_hint` is the
            status for the response.
        """
        state = self._h11.their_state
        if state is h11.IDLE:
            return self._read_head()
        if state is h11.SEND_BODY:
            return self._read_sized() if self._chunks is None else self._read_chunked(self._chunks)
        return None

    def next_request(self) -> bool:
        """Prepare for the next request. Return False if the connection must be closed instead."""
        if not (self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE):
            return False
        self._h11.start_next_cycle()
        return True

    def response(self, status: int, fields: Fields, *, keep_alive_seconds: float | None) -> bytes:
        """Return the head of a response.

        :param keep_alive_seconds: Time for which the connection is kept open, in seconds. `None` if
            it is closed after this response.
        :raises h11.LocalProtocolError: If the response is invalid.
        """
        headers = list(fields)
        names = {name for name, _ in headers}
        if b"date" not in names:
            headers.append((b"date", _date(int(time.time()))))
        if b"connection" not in names:
            if keep_alive_seconds is None or not self._persistent:
                headers.append((b"connection", b"close"))
            else:
                headers.append((b"connection", b"keep-alive"))
                headers.append((b"keep-alive", b"timeout=%d" % keep_alive_seconds))
        return self._h11.send(
            h11.Response(status_code=status, headers=headers, reason=_reason(status))
        )

    def body(self, data: bytes) -> bytes:
        """Return the bytes of a part of the response's body."""
        return self._h11.send(h11.Data(data=data))

    def end(self) -> bytes:
        """Return the bytes that end the response."""
        return self._h11.send(h11.EndOfMessage())

    def continue_response(self) -> bytes:
        """Return the interim response 100 Continue."""
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[]))

    def refusal(self, status: int) -> bytes:
        """Return an error response that closes the connection."""
        text = _reason(status)
        fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
        head = self.response(status, fields, keep_alive_seconds=None)
        return head + self.body(text) + self.end()

    def _read_head(self) -> h11.Request | None:
        received = self._received
        if not (self._blank or self._scanned) and received.startswith(b"\r\n"):
            self._blank = True  # RFC 9112 tolerates one
            del received[:2]
        if not received or received == b"\r":
            return None
        if received[0] <= 0x20:  # for example, TLS: do not wait for the rest
            raise h11.RemoteProtocolError("the request line is invalid")
        found = received.find(_BLANK_LINE, max(0, self._scanned - 3))
        size = len(received) if found < 0 else found + 4
        _check_lines(received, size)
        if found < 0:
            self._scanned = size
            return None
        self._scanned, self._blank = 0, False
        self._give(size)
        request = self._h11.next_event()
        assert isinstance(request, h11.Request)
        self._check(request)
        return request

    def _check(self, request: h11.Request) -> None:
        """Store a request's framing.

        :raises h11.RemoteProtocolError: If it is invalid.
        """
        if not request.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("only HTTP/1 is supported", 505)
        self._chunks = None
        self._persistent = request.http_version >= b"1.1"
        absolute = _ABSOLUTE.match(request.target)
        if absolute is not None and _HOST.fullmatch(absolute[1]) is None:
            raise h11.RemoteProtocolError("the target's authority is invalid")
        length = None
        for name, value in request.headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                self._chunks = ChunkedBody()  # the only coding that h11 supports
            elif name == b"host" and _HOST.fullmatch(value) is None:
                raise h11.RemoteProtocolError("the Host is invalid")
            elif name == b"connection" and b"close" in value.lower():
                self._persistent = False
        self._left = length or 0
        if self._chunks is not None and (length is not None or request.http_version < b"1.1"):
            raise h11.RemoteProtocolError("the body's framing is ambiguous")

    def _read_sized(self) -> h11.Data | h11.EndOfMessage | None:
        if self._left:
            if not self._received:
                return None
            self._left -= self._give(min(self._left, len(self._received)))
        return self._parsed()

    def _read_chunked(self, chunks: ChunkedBody) -> h11.Data | h11.EndOfMessage | None:
        if data := chunks.take(self._received):
            self._h11.receive_data(b"%x\r\n%b\r\n" % (len(data), bytes(data)))
            return self._parsed()
        return self._read_trailers() if chunks.ended else None

    def _read_trailers(self) -> h11.Data | h11.EndOfMessage | None:
        """Read the last chunk's line and the trailers."""
        last = self._received.find(b"\r\n")
        found = self._received.find(_BLANK_LINE, last)  # without trailers, the same
        size = len(self._received) if found < 0 else found + 4
        _check_lines(self._received, size)
        if found < 0:
            return None
        self._give(size)
        return self._parsed()

    def _give(self, size: int) -> int:
        """Pass the next received bytes to h11."""
        self._h11.receive_data(bytes(self._received[:size]))
        del self._received[:size]
        return size

    def _parsed(self) -> h11.Data | h11.EndOfMessage:
        event = self._h11.next_event()
        assert isinstance(event, h11.Data | h11.EndOfMessage)
        return event


def _check_lines(received: bytearray, size: int) -> None:
    """Check the first `size` bytes of a head, which may be incomplete.

    :raises h11.RemoteProtocolError: If they are malformed.
    """
    if size > MAX_HEAD:
        raise h11.RemoteProtocolError("the head is too long", 431)
    ends = received.count(b"\r\n", 0, size)
    bare = received.count(b"\n", 0, size) - ends or received.count(b"\r", 0, size - 1) > ends
    folded = received.find(b"\n ", 0, size) >= 0 or received.find(b"\n\t", 0, size) >= 0
    if bare or folded:
        raise h11.RemoteProtocolError("the head has an invalid line")


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


@lru_cache
def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
