"""Properties of the response parser: any chunks, any bytes, and agreement with h11."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiers import examples

from gprochat_anyio.transport._failures import ProtocolViolation
from gprochat_anyio.transport._response_parser import ResponseParser

from .parsing import parse
from .responses import CHUNKED, OK


@st.composite
def chunked_bodies(draw: Any) -> tuple[bytes, bytes]:
    """Generate a body, and its encoding in chunks."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
    extension = st.sampled_from([b"", b";a", b";a=b", b';a="\\" b"'])
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(c), draw(extension), c) for c in chunks)
    return b"".join(chunks), wire + b"0\r\n" + draw(st.sampled_from([b"", b"T: x\r\n"])) + b"\r\n"


@given(framed=chunked_bodies(), cuts=st.lists(st.integers(1, 60), max_size=20))
def test_any_chunks_in_any_reads_give_the_body(
    framed: tuple[bytes, bytes], cuts: list[int]
) -> None:
    expected, wire = framed
    response = ResponseParser()
    rest, body = CHUNKED + wire, b""
    for cut in [*cuts, 10_000]:
        if rest[:cut]:
            response.feed(rest[:cut])
        body += b"".join(response.take())
        rest = rest[cut:]

    assert body == expected
    assert response.reusable
    response.release()


@given(st.binary(min_size=1, max_size=300), st.sampled_from([b"", OK, CHUNKED, CHUNKED + b"2\r\n"]))
def test_any_bytes_raise_only_violations(noise: bytes, start: bytes) -> None:
    response = ResponseParser()
    with suppress(ProtocolViolation):
        response.feed(start + noise)
        response.feed(noise)
        while response.take():
            pass
    response.release()


Meaning = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers with lower-case names and single blanks, and body."""


def by_h11(wire: bytes) -> Meaning | None:
    """Parse with h11. Return None unless the data is one complete response."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    status, headers, body = 0, [], b""
    try:
        connection.receive_data(wire)
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return None
            if isinstance(event, h11.Response):
                status, headers = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
    except h11.RemoteProtocolError:
        return None
    return status, [(name, b" ".join(value.split())) for name, value in headers], body


def by_ours(wire: bytes, size: int) -> Meaning | None:
    """Parse with `ResponseParser`, likewise."""
    try:
        response, body = parse(wire, size)
    except ProtocolViolation:
        return None
    headers = [(name.lower(), b" ".join(value.split())) for name, value in response.headers]
    response.release()
    return (response.status, headers, body) if response.complete else None


WHOLE = {
    "chunked": OK + b"Ab: cd\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nT: x\r\n\r\n",
    "length": OK + b"Ab: cd,\r\n\tef\r\nContent-Length: 2\r\n\r\nok",
    "interim": b"HTTP/1.1 103 E\r\nA: b\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
}


@pytest.mark.slow
@pytest.mark.parametrize("wire", WHOLE.values(), ids=WHOLE)
def test_a_changed_byte_passes_only_if_h11_agrees(wire: bytes) -> None:
    """Every byte of a response is replaced, and one is inserted at every offset."""
    assert by_ours(wire, 1) == by_h11(wire) is not None
    for at in range(len(wire)):
        for byte in (
            b"%c" % code for code in b'\0\x01\t\n\x0b\x0c\r\x1b 0129Aaxz-+_,:;="/.\x7f\x80\xff'
        ):
            for end in (at, at + 1):
                changed = wire[:at] + byte + wire[end:]
                ours = by_ours(changed, 10_000)
                assert ours in (None, by_h11(changed)), changed
                if ours is None:
                    assert by_ours(changed, 1) is None, changed


@examples(3)
@given(
    wire=st.sampled_from(list(WHOLE.values())),
    damage=st.lists(
        st.tuples(
            st.integers(0, 200),
            st.integers(0, 8),
            st.sampled_from(
                [b"", b"\r\n", b"\r\n ", b"\r\n\t", b"\0", b"0", b"HTTP/1.1 ", b": ", b"\n", b"\r"]
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    size=st.integers(1, 30),
)
def test_accepted_data_agrees_with_h11_for_any_reads(
    wire: bytes, damage: list[tuple[int, int, bytes]], size: int
) -> None:
    for at, dropped, inserted in damage:
        wire = wire[:at] + inserted + wire[at + dropped :]
    ours, theirs = by_ours(wire, 10_000), by_h11(wire)

    assert by_ours(wire, size) == ours
    if ours is not None and theirs is not None:
        assert ours == theirs
