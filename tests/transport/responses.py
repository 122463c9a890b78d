"""Responses of HTTP/1.1: valid ones of every framing, and those that are refused."""

from __future__ import annotations

from dataclasses import dataclass

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = OK + b"Content-Length: 3\r\n\r\nbad"


@dataclass
class Shape:
    """A response and its meaning."""

    wire: bytes
    body: bytes = b""
    status: int = 200
    framing: str = "none"
    reusable: bool = True
    bodiless: bool = False
    eof: bool = False


SHAPES = {
    "length": Shape(OK + b"Content-Length: 5\r\n\r\nhello", b"hello", framing="length"),
    "length of nothing": Shape(OK + b"Content-Length: 0\r\n\r\n", framing="length"),
    "length with blanks": Shape(OK + b"Content-Length: \t2 \r\n\r\nok", b"ok", framing="length"),
    "chunked": Shape(CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello", framing="chunked"),
    "chunked, nothing": Shape(CHUNKED + b"0\r\n\r\n", framing="chunked"),
    "chunked, odd sizes": Shape(
        CHUNKED + b"00A\r\n0123456789\r\n0b\r\n0123456789a\r\n000\r\n\r\n",
        b"01234567890123456789a",
        framing="chunked",
    ),
    "chunked, other case": Shape(
        OK + b"TRANSFER-encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", framing="chunked"
    ),
    "chunked, blanks around": Shape(
        OK + b"Transfer-Encoding: \t chunked  \r\n\r\n0\r\n\r\n", framing="chunked"
    ),
    "chunk extensions": Shape(
        CHUNKED + b'2;a\r\nok\r\n1;b=c;d="e;f"\r\n!\r\n0;g=h\r\n\r\n', b"ok!", framing="chunked"
    ),
    "trailers": Shape(
        CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n", b"ok", framing="chunked"
    ),
    "close-delimited": Shape(
        OK + b"\r\nup to the end", b"up to the end", framing="close", reusable=False, eof=True
    ),
    "close-delimited, nothing": Shape(OK + b"\r\n", framing="close", reusable=False, eof=True),
    "connection: close": Shape(
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
        reusable=False,
    ),
    "keep-alive, close": Shape(
        OK + b"Connection: keep-alive, Close\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
        reusable=False,
    ),
    "HTTP/1.0": Shape(
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", framing="length", reusable=False
    ),
    "HTTP/1.0, kept alive": Shape(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
    ),
    "HTTP/1.0, chunked": Shape(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n",
        b"ok",
        framing="chunked",
        reusable=False,
    ),
    "HTTP/1.0, close-delimited": Shape(
        b"HTTP/1.0 200 OK\r\n\r\nok", b"ok", framing="close", reusable=False, eof=True
    ),
    "204": Shape(b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    "204 with a length": Shape(b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", status=204),
    "204, chunked": Shape(b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", status=204),
    "304": Shape(b"HTTP/1.1 304 N\r\nETag: x\r\nContent-Length: 5\r\n\r\n", status=304),
    "HEAD": Shape(OK + b"Content-Length: 5\r\n\r\n", bodiless=True),
    "HEAD, chunked": Shape(CHUNKED, bodiless=True),
    "HEAD, interim of an unknown status": Shape(
        b"HTTP/1.1 104 U\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\n", bodiless=True
    ),
    "HEAD without framing": Shape(OK + b"\r\n", bodiless=True, reusable=False),
    "100": Shape(
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
    ),
    "103, twice": Shape(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + CHUNKED + b"0\r\n\r\n",
        framing="chunked",
    ),
    "102, then 404": Shape(
        b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n",
        status=404,
        framing="length",
    ),
    **{
        f"interim of an unknown status, {name}": Shape(
            interim + CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok", framing="chunked"
        )
        for name, interim in {
            "104": b"HTTP/1.1 104 Upload Resumption Supported\r\nA: b\r\n\r\n",
            "199, twice": b"HTTP/1.1 199\r\n\r\n" * 2,
            "between others": b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 104 U\r\n\r\nHTTP/1.1 100 C\r\n\r\n",
        }.items()
    },
    "tab and obs-text in the reason": Shape(
        b"HTTP/1.1 200 \xc3\xa9\t!\r\nContent-Length: 0\r\n\r\n", framing="length"
    ),
    "empty reason": Shape(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", framing="length"),
    "folded length": Shape(OK + b"Content-Length:\r\n 2\r\n\r\nok", b"ok", framing="length"),
    "fold of blanks": Shape(
        OK + b"Content-Length: 2\r\n \r\n\t \r\n\r\nok", b"ok", framing="length"
    ),
    "folded coding": Shape(
        OK + b"Transfer-Encoding:\r\n\tchunked\r\n\t\r\n\r\n5\r\na\r\n b\r\n0\r\n\r\n",
        b"a\r\n b",
        framing="chunked",
    ),
    "folded before a body like folds": Shape(
        OK + b"A: b\r\n c\r\nContent-Length: 9\r\n\r\n\r\n a\r\n\tb\r",
        b"\r\n a\r\n\tb\r",
        framing="length",
    ),
    "folds in every head": Shape(
        b"HTTP/1.1 103 E\r\nLink: a,\r\n\tb\r\n\r\n" * 2
        + OK
        + b"A: b,\r\n c\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
    ),
    "no reason": Shape(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", framing="length"),
    "an upgrade is offered": Shape(
        b"HTTP/1.1 426 U\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        status=426,
        framing="length",
    ),
}
REFUSED = {
    "both framings": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "both framings, turned": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "both framings, in a trailer": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "the same length twice": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    **{
        f"length {length!r}": OK + b"Content-Length: " + length + b"\r\n\r\n"
        for length in (
            b"",
            b"5\r\n 6",
            b"5\r\n ,5",
            b"+5",
            b"-5",
            b"5, 5",
            b"0x5",
            b"5 5",
            b"1_0",
            b"\xb2",
            b"9" * 30,
        )
    },
    **{
        f"coding {coding!r}": OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for coding in (
            b"",
            b"gzip",
            b"identity",
            b"gzip, chunked",
            b"chunked, gzip",
            b"chunked, chunked",
            b"chunked;q=1",
            b"chunked\t",
            b"chunked \t ",
            b",chunked",
            b"chunked\r\n , chunked",
            b"\x0bchunked",
            b"xchunked",
        )
    },
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "gzip, then chunked": OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    **{
        f"chunk {chunk!r}": CHUNKED + chunk
        for chunk in (
            b"x\r\n",
            b"\r\n",
            b"-2\r\nok\r\n",
            b"+2\r\nok\r\n",
            b"0x2\r\nok\r\n",
            b" 2\r\nok\r\n",
            b"2 \r\nok\r\n",
            b"2_0\r\n",
            b"2\nok\r\n",
            b"2\rok\r\n",
            b"2\r\nok\n0\r\n\r\n",
            b"2\r\nokX\r\n",
            b"2\r\nok0\r\n\r\n",
            b"1" + b"0" * 16 + b"\r\n",
            b"2;\r\nok\r\n",
            b"2;a\nb\r\nok\r\n",
            b"2;a\rb\r\nok\r\n",
            b"0\r\nno field\r\n\r\n",
            b"0\r\n folded: 1\r\n\r\n",
            b"0\r\nX: 1\r\n folded\r\n\r\n",
            b"0\r\nX: 1\n\r\n",
        )
    },
    **{
        f"{start!r} {name}": before + start + b" 200 OK\r\nContent-Length: 0\r\n\r\n"
        for start in (b"RTSP/1.0", b"ICE/1.0", b"HTTP/2.0", b"HTTP/0.9", b"\r\nHTTP/1.1")
        for name, before in {
            "after 100": b"HTTP/1.1 100 C\r\n\r\n",
            "after 104": b"HTTP/1.1 104 U\r\nA: b\r\n\r\n",
        }.items()
    },
    "RTSP/1.0": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICE/1.0": b"ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0, interim": b"HTTP/2.0 100 C\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "http/1.1": b"http/1.1 200 OK\r\n\r\n",
    "101": b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "101 of nothing": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK,
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\n\r\n",
    **{
        f"{byte!r} in {name}": start + byte + b"K\r\nContent-Length: 0\r\n\r\n"
        for byte in (b"\0", b"\x01", b"\x0b", b"\x0c", b"\x1b", b"\x7f")
        for name, start in {
            "the reason": b"HTTP/1.1 200 O",
            "the reason after an interim head": b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 ",
            "a field": OK + b"A: b",
            "a folded field": OK + b"A: b\r\n c",
            "a name": OK + b"A",
        }.items()
    },
    "two blanks": b"HTTP/1.1  200 OK\r\n\r\n",
    "bare CR in the reason": b"HTTP/1.1 200 O\rK\r\n\r\n",
    "bare LF after the reason": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "bare LF after a field": OK + b"A: b\nContent-Length: 0\r\n\r\n",
    "bare CR in a field": OK + b"A: b\rC: d\r\n\r\n",
    "bare LF ends the head": OK + b"Content-Length: 0\r\n\n",
    "a line break first": b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "blank before the colon": OK + b"Content-Length : 5\r\n\r\n",
    "no name": OK + b": 5\r\n\r\n",
    "no colon": OK + b"Content-Length\r\n\r\n",
    "a blank after the status line": OK + b" A: b\r\n\r\n",
    "a tab after the status line": OK + b"\tA: b\r\n\r\n",
    "a blank after the status line, then a fold": OK + b" A: b\r\n c\r\n\r\n",
    "a blank after an interim head": b"HTTP/1.1 100 C\r\n\r\n " + OK + b"\r\n",
    "a blank after a second status line": b"HTTP/1.1 103 E\r\nA: b\r\n\r\n" + OK + b" A: b\r\n\r\n",
    "a folded name": OK + b"Content-Length\r\n : 5\r\n\r\n",
    "a fold after a bare LF": OK + b"A: b\n c\r\n\r\n",
    "a fold after a bare CR": OK + b"A: b\r c\r\n\r\n",
    "only bare LFs": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "data after an interim close": b"HTTP/1.1 100 C\r\nConnection: close\r\n\r\n" + OK,
    **{
        f"an interim response that has a body: {field!r}": b"HTTP/1.1 104 U\r\n%b\r\n\r\n" % field
        for field in (b"Content-Length: 5", b"Transfer-Encoding: chunked")
    },
    "body of an interim response": b"HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\nhello" + NEXT,
    "HTML": b"<html><body>Sign in</body></html>",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
}
