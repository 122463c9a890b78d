"""TLS on an open connection. Imported when it is first needed, because `ssl` takes 13 ms."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from ._failures import ConnectFailure, TLSBroken, reason_of

if TYPE_CHECKING:
    from ._connecting import OpeningSocket

_UNKNOWN_AUTHORITY = (18, 19, 20)  # OpenSSL's X509_V_ERR_*: self-signed, or the issuer is unknown

_RECORD = 16 * 1024  # maximum of one read: the plaintext of one TLS record


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the shared default context, as creating one takes 20 ms.

    It trusts the certificate authorities of SSL_CERT_FILE or SSL_CERT_DIR if set, otherwise
    certifi's.
    """
    cafile, capath = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not (cafile or capath):
        import certifi  # noqa: PLC0415 - needed for TLS only

        cafile = certifi.where()
    context = ssl.create_default_context(cafile=cafile, capath=capath)
    context.set_alpn_protocols(["http/1.1"])
    return context


class TLSLayer:
    """One side of a TLS connection, without I/O.

    After every operation, send the bytes of `outgoing()`: handshakes, key updates and alerts
    produce some as well. After `decrypt` and `feed_eof`, check `failure` and `ended`. Neither
    method raises, because plaintext may precede the failure.

    :param server_hostname: The host name to verify. `None` for the server's side, which does its
        handshake in `decrypt`.
    :raises ValueError: If the host name is invalid.
    """

    __slots__ = ("_incoming", "_outgoing", "ended", "failure", "ssl_object")

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        """The source of the TLS version and the peer's certificate."""
        self.ended = False
        """True once the peer has ended TLS in an orderly way, with `close_notify`."""
        self.failure: TLSBroken | None = None
        """The failure after which nothing more can be received, or `None`."""

    def do_handshake(self, data: bytes = b"") -> bool:
        """Feed ciphertext to the handshake. Return True once it is complete.

        Data that arrived after the handshake stays buffered: call `decrypt(b"")` before waiting for
        the socket.

        :raises ssl.SSLError: If the handshake fails.
        """
        self._incoming.write(data)
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self, data: bytes) -> bytes:
        """Feed ciphertext. Return all plaintext that it completes.

        Records without plaintext, such as session tickets, give `b""`. Data after `close_notify` is
        ignored.
        """
        self._incoming.write(data)
        pieces: list[bytes] = []
        while not self.ended and self.failure is None:
            try:
                piece = self.ssl_object.read(_RECORD)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._fail(reason_of(error))
                break
            if piece:
                pieces.append(piece)
            else:
                self.ended = True
            # avoids another read, which would cost an exception
            if not self._incoming.pending and not self.ssl_object.pending():
                break
        return b"".join(pieces)

    def encrypt(self, data: bytes) -> None:
        """Encrypt data for the peer. `outgoing()` returns the ciphertext.

        If the peer starts a renegotiation (TLS 1.2) meanwhile, `failure` is set.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self.ssl_object.write(rest) :]
        except ssl.SSLError as error:
            self._fail(reason_of(error))

    def outgoing(self) -> bytes:
        """Return the bytes to send to the peer, and remove them from the buffer."""
        return self._outgoing.read()

    def feed_eof(self) -> None:
        """Handle the end of the ciphertext.

        Without a preceding `close_notify`, `failure` is set: anybody on the network can close the
        connection, so this is not a reliable end of the peer's data.
        """
        if not self.ended:
            self._fail("the peer closed the connection without ending TLS")

    def end(self) -> None:
        """End sending with `close_notify`."""
        with suppress(ssl.SSLError):  # it wants to read the peer's
            self.ssl_object.unwrap()

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            self.failure = TLSBroken(reason)


async def start_tls(
    opening: OpeningSocket, host: str, ssl_context: ssl.SSLContext | None
) -> TLSLayer:
    """Do the handshake, and verify the host's certificate.

    The caller closes the socket if this raises.

    :param ssl_context: The TLS context. `None` for `default_ssl_context()`.
    :raises ConnectFailure: If the handshake fails, or the server chose HTTP/2.
    """
    final = False
    try:
        layer = TLSLayer(ssl_context or default_ssl_context(), host.partition("%")[0])
        data = b""
        while not layer.do_handshake(data):
            await opening.send(layer.outgoing())
            data = await opening.receive()
        await opening.send(layer.outgoing())
    except ssl.SSLCertVerificationError as error:
        reason = f"its certificate is not valid: {error.verify_message}"
        if error.verify_code in _UNKNOWN_AUTHORITY:
            reason += " (for an authority of your own, give ssl_context or set SSL_CERT_FILE)"
    except (OSError, ValueError) as error:
        reason = f"the TLS handshake failed: {reason_of(error)}"
    else:
        if layer.ssl_object.selected_alpn_protocol() != "h2":
            return layer
        final = True
        reason = (
            "it chose HTTP/2, which ssl_context offers but this client does not support; "
            'call ssl_context.set_alpn_protocols(["http/1.1"])'
        )
    raise ConnectFailure(f"could not connect to {host}: {reason}", final=final)
