"""HTTP/1.1 without I/O: the requests in a byte stream, however it is split."""

from __future__ import annotations

from typing import TypeAlias

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_anyio.site._http1 import MAX_HEAD, Http1

Read: TypeAlias = list[tuple[bytes, bytes, bytes]]

POST = b"POST /a HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"


def read(http: Http1, *pieces: bytes) -> Read:
    """Return the requests in these pieces: method, target and body.

    Each request has a response at its end.
    """
    requests: Read = []
    for piece in pieces:
        http.receive(piece)
        while (event := http.next_event()) is not None:
            if isinstance(event, h11.Request):
                requests.append((event.method, event.target, b""))
            elif isinstance(event, h11.Data):
                method, target, body = requests[-1]
                requests[-1] = method, target, body + event.data
            else:
                http.response(204, (), keep_alive_seconds=5)
                http.end()
                if not http.next_request():
                    return requests
    return requests


SMUGGLED = {
    "both framings": POST
    + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "both framings, the other way": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "no length at all, with a coding": POST
    + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 0, 5\r\n\r\n" + HIDDEN,
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -1\r\n\r\nhello",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with a space": POST + b"Content-Length: 1 0\r\n\r\nhello",
    "an empty length": POST + b"Content-Length: \r\n\r\nhello",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a coding with a space before the colon": POST
    + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a coding that is not one": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding after another": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding before another": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a coding in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding after a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a coding on a second line": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded field": POST + b"X: a\r\n\tContent-Length: 5\r\n\r\nhello",
    "a coding in HTTP/1.0": b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "an authority with a user": b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bare line feed between fields": POST + b"X: a\nContent-Length: 5\r\n\r\nhello",
    "a bare line feed at the end of the head": POST + b"Content-Length: 5\r\n\nhello",
    "nothing but bare line feeds": b"POST /a HTTP/1.1\nHost: a\n\n",
    "a bare carriage return in a value": POST + b"X: a\rContent-Length: 5\r\n\r\nhello",
    "a bare carriage return in the request line": b"GET /a\r HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in a value": POST + b"X: a\0b\r\n\r\n",
    "NUL in a name": POST + b"X\0: a\r\n\r\n",
    "a line without a colon": POST + b"Content-Length\r\n\r\n",
    "a field that begins with a space": b"POST /a HTTP/1.1\r\n Host: a\r\n\r\n",
    "two hosts": POST + b"Host: b\r\n\r\n",
    "no host": b"POST /a HTTP/1.1\r\n\r\n",
    "a host that is not one": b"POST /a HTTP/1.1\r\nHost: a/b@c\r\n\r\n",
    "a target with a space": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a second blank line before a request": b"\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a size with a sign": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": CHUNKED + b"1_0\r\nhello\r\n0\r\n\r\n",
    "a size of seventeen digits": CHUNKED + b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "a size after a space": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "a space before an extension": CHUNKED + b"5 ;a\r\nhello\r\n0\r\n\r\n",
    "a size before a space": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "an empty size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "a size that ends with a bare line feed": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "a bare carriage return in an extension": CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a bare line feed in an extension": CHUNKED + b"5;a\nhello\r\n0\r\n\r\n",
    "NUL in an extension": CHUNKED + b"5;\0\r\nhello\r\n0\r\n\r\n",
    "an extension without end": CHUNKED + b"5;" + b"a" * 2000,
    "a chunk longer than its size": CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
    "a chunk that ends with a bare line feed": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "a chunk that ends with other bytes": CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
    "a bare line feed in a trailer": CHUNKED + b"0\r\nX: a\nY: b\r\n\r\n",
    "a folded trailer": CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n",
    "a trailer that is not a field": CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n",
    "trailers without end": CHUNKED + b"0\r\n" + b"X: a\r\n" * MAX_HEAD,
    "a head without end": POST + b"X: a\r\n" * MAX_HEAD,
    "another version": b"GET /a HTTP/2.0\r\nHost: a\r\n\r\n",
    "a version without a point": b"GET /a HTTP/1\r\nHost: a\r\n\r\n",
    "no version": b"GET /a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
}


@pytest.mark.parametrize("case", SMUGGLED)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_ambiguous_requests_are_rejected(case: str, size: int) -> None:
    sent = SMUGGLED[case]
    http = Http1()
    with pytest.raises(h11.RemoteProtocolError) as raised:
        read(http, *(sent[i : i + size] for i in range(0, len(sent), size)))
    assert raised.value.error_status_hint in (400, 431, 501, 505)
    if http.can_refuse:
        refusal = http.refusal(raised.value.error_status_hint)
        assert b"\r\nconnection: close\r\n" in refusal.lower()


BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


def sized(body: bytes) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(parts: list[bytes], extension: bytes, trailer: bytes) -> bytes:
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    return CHUNKED + chunks + b"0%b\r\n%b\r\n" % (extension, trailer)


@given(
    requests=st.lists(
        st.one_of(
            BODIES.map(lambda parts: (b"".join(parts), sized(b"".join(parts)))),
            st.tuples(
                BODIES,
                st.sampled_from([b"", b";a", b';a="b c"', b";a=\xff"]),
                st.sampled_from([b"", b"X: a\r\n", b"X: a\r\nY:\r\n"]),
            ).map(lambda made: (b"".join(made[0]), chunked(*made))),
        ),
        min_size=1,
        max_size=3,
    ),
    blank=st.sampled_from([b"", b"\r\n"]),
    data=st.data(),
)
def test_requests_are_the_same_however_they_are_split(
    requests: list[tuple[bytes, bytes]], blank: bytes, data: st.DataObject
) -> None:
    sent = blank + blank.join(wire for _, wire in requests)
    borders = data.draw(st.lists(st.integers(0, len(sent)), max_size=8).map(sorted))
    pieces = [sent[i:j] for i, j in zip([0, *borders], [*borders, len(sent)], strict=True)]
    http = Http1()
    assert read(http, *pieces) == [(b"POST", b"/a", body) for body, _ in requests]
    assert http.pending == 0


@given(st.binary(max_size=200), st.sampled_from([b"", POST, CHUNKED, CHUNKED + b"5\r\nhello"]))
def test_any_bytes_are_a_request_or_an_error(sent: bytes, before: bytes) -> None:
    status = 400
    try:
        read(Http1(), before + sent)
    except h11.RemoteProtocolError as error:
        status = error.error_status_hint
    assert 400 <= status <= 505


@pytest.mark.parametrize(
    ("head", "connection"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"keep-alive"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", b"close"),
        (b"GET / HTTP/1.0\r\n\r\n", b"close"),
    ],
)
def test_a_response_announces_keep_alive_or_close(head: bytes, connection: bytes) -> None:
    http = Http1()
    http.receive(head)
    assert isinstance(http.next_event(), h11.Request)
    assert isinstance(http.next_event(), h11.EndOfMessage)
    sent = http.response(200, [(b"content-length", b"0")], keep_alive_seconds=5).lower()
    assert b"\r\nconnection: %b\r\n" % connection in sent
    assert (b"\r\nkeep-alive: timeout=5\r\n" in sent) is (connection == b"keep-alive")
    assert http.end() == b""
    assert http.next_request() is (connection == b"keep-alive")


def test_the_application_s_header_fields_take_precedence() -> None:
    http = Http1()
    http.receive(HIDDEN)
    http.next_event()
    fields = [(b"date", b"today"), (b"connection", b"close"), (b"content-length", b"0")]
    sent = http.response(299, fields, keep_alive_seconds=5)
    assert sent.startswith(b"HTTP/1.1 299 \r\n")
    assert sent.count(b"date") == sent.count(b"close") == 1


def test_100_continue() -> None:
    http = Http1()
    http.receive(POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert not http.waits_for_continue
    assert isinstance(http.next_event(), h11.Request)
    assert http.waits_for_continue
    assert http.continue_response() == b"HTTP/1.1 100 \r\n\r\n"
    assert not http.waits_for_continue


def test_a_pipelined_request_waits() -> None:
    http = Http1()
    http.receive(HIDDEN + HIDDEN)
    assert isinstance(http.next_event(), h11.Request)
    assert isinstance(http.next_event(), h11.EndOfMessage)
    assert http.next_event() is None
    assert http.pending == len(HIDDEN)
    assert not http.next_request()  # the response has not begun


def test_chunks_that_arrive_together_are_one_event() -> None:
    """h11 would need seconds for a large body in chunks of one byte."""
    http = Http1()
    http.receive(CHUNKED + b"1\r\nx\r\n" * 1000 + b"5\r\nyy")
    events = [event for event in iter(http.next_event, None) if isinstance(event, h11.Data)]
    assert [bytes(event.data) for event in events] == [b"x" * 1000 + b"yy"]
