"""TLS without I/O: all plaintext is returned, and every kind of end is distinguished."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress

import pytest
from support.servers import authority, client_context, server_context

from gprochat_anyio.transport._failures import TLSBroken
from gprochat_anyio.transport._tls import TLSLayer

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Server:
    """The server's side, without I/O."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = server_context().wrap_bio(self.incoming, self.outgoing, server_side=True)

    def handshake(self, data: bytes) -> bytes:
        self.incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def says(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    def ends(self) -> bytes:
        """Send close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()

    def receives(self, data: bytes) -> bytes:
        self.incoming.write(data)
        received = b""
        with suppress(ssl.SSLWantReadError):
            while piece := self.tls.read(65536):
                received += piece
        return received


@pytest.fixture(params=VERSIONS, ids=["TLS 1.2", "TLS 1.3"])
def version(request: pytest.FixtureRequest) -> Iterator[ssl.TLSVersion]:
    context = client_context()
    context.maximum_version = request.param
    yield request.param
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED


def shaken_hands(*, last: bytes = b"") -> tuple[TLSLayer, Server, bytes]:
    """Return both sides after the handshake, and the server's data that is not yet fed.

    :param last: Data that the server sends as soon as possible.
    """
    layer, server = TLSLayer(client_context(), "localhost"), Server()
    data = b""
    while not layer.do_handshake(data):
        data = server.handshake(layer.outgoing())
    rest = server.handshake(layer.outgoing())
    return layer, server, rest + (server.says(last) if last else b"")


@pytest.mark.usefixtures("version")
class TestData:
    def test_both_directions(self) -> None:
        layer, server, rest = shaken_hands()
        assert layer.decrypt(rest) == b""
        assert layer.decrypt(server.says(b"hello")) == b"hello"
        layer.encrypt(b"request")
        assert server.receives(layer.outgoing()) == b"request"
        assert layer.outgoing() == b""
        assert (layer.ended, layer.failure) == (False, None)

    def test_all_records_of_one_feed_come_out(self) -> None:
        layer, server, rest = shaken_hands()
        sent = [b"a" * 16384, b"b" * 40_000, b"c"]
        assert layer.decrypt(rest + b"".join(map(server.says, sent))) == b"".join(sent)

    def test_records_in_single_bytes(self) -> None:
        layer, server, rest = shaken_hands(last=b"hello")
        data = rest + server.says(b" world")
        assert b"".join(layer.decrypt(data[i : i + 1]) for i in range(len(data))) == b"hello world"

    def test_much_to_send(self) -> None:
        layer, server, _ = shaken_hands()
        layer.encrypt(b"x" * 300_000)
        assert server.receives(layer.outgoing()) == b"x" * 300_000

    def test_nothing_to_send(self) -> None:
        layer, _, _ = shaken_hands()
        layer.encrypt(b"")
        assert layer.outgoing() == b""


def test_data_after_the_handshake_is_not_lost() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the server's flight is the last one
    layer, server = TLSLayer(context, "localhost"), Server()
    assert not layer.do_handshake()
    assert not layer.do_handshake(server.handshake(layer.outgoing()))
    assert layer.do_handshake(server.handshake(layer.outgoing()) + server.says(b"early"))
    assert layer.decrypt(b"") == b"early"


def test_a_handshake_in_single_bytes() -> None:
    layer, server = TLSLayer(client_context(), "localhost"), Server()
    layer.do_handshake()
    flight = server.handshake(layer.outgoing())
    states = [layer.do_handshake(flight[i : i + 1]) for i in range(len(flight))]
    assert states == [False] * (len(flight) - 1) + [True]
    data = server.handshake(layer.outgoing())
    assert layer.decrypt(data + server.says(b"hello")) == b"hello"


def test_session_tickets_are_not_data() -> None:
    layer, _, tickets = shaken_hands()
    assert tickets
    assert layer.decrypt(tickets) == b""
    assert (layer.ended, layer.failure) == (False, None)


@pytest.mark.usefixtures("version")
class TestEnds:
    def test_close_notify_is_an_orderly_end(self) -> None:
        layer, server, rest = shaken_hands(last=b"bye")
        assert layer.decrypt(rest + server.ends()) == b"bye"
        assert (layer.ended, layer.failure) == (True, None)
        assert layer.decrypt(b"more") == b""
        layer.feed_eof()
        assert (layer.ended, layer.failure) == (True, None)

    def test_an_end_without_close_notify_is_a_failure(self) -> None:
        layer, _, rest = shaken_hands(last=b"bye")
        assert layer.decrypt(rest) == b"bye"
        layer.feed_eof()
        assert not layer.ended
        assert isinstance(layer.failure, TLSBroken)
        assert str(layer.failure) == "the peer closed the connection without ending TLS"

    def test_data_before_a_broken_record_comes_out(self) -> None:
        layer, server, rest = shaken_hands(last=b"hello")
        broken = bytearray(server.says(b"secret"))
        broken[-1] ^= 1
        assert layer.decrypt(rest + broken) == b"hello"
        assert layer.failure is not None
        assert "bad record mac" in str(layer.failure).lower()
        assert layer.outgoing(), "no alert"
        assert layer.decrypt(server.says(b"more")) == b""
        assert "secret" not in repr(layer.failure)

    def test_the_first_failure_counts(self) -> None:
        layer, _, rest = shaken_hands()
        layer.decrypt(rest + b"HTTP/1.1 400 Bad Request\r\n\r\n")
        failure = layer.failure
        layer.feed_eof()
        assert layer.failure is failure is not None


def test_a_failure_to_encrypt() -> None:
    layer = TLSLayer(client_context(), "localhost")
    layer.encrypt(b"before the handshake")
    assert isinstance(layer.failure, TLSBroken)


def test_an_invalid_host() -> None:
    with pytest.raises(ValueError, match="server_hostname"):
        TLSLayer(client_context(), "")
