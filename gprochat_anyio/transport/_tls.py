"""TLS on a connection that is already made. Imported when first needed: `ssl` takes 13 ms."""

from __future__ import annotations

import os
import ssl
from functools import cache
from typing import TYPE_CHECKING

from ._failures import ConnectFailure, TLSBroken, reason_of

if TYPE_CHECKING:
    from ._connecting import OpeningSocket

_UNKNOWN_AUTHORITY = (18, 19, 20)  # OpenSSL's X509_V_ERR_*: self-signed, or no issuer was found

_RECORD = 16 * 1024  # the most that one read gives: the plaintext of one TLS record


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the verifying context shared by all who bring none; making one takes 20 ms.

    Certificate authorities are those of SSL_CERT_FILE or SSL_CERT_DIR if set, else certifi's.
    """
    cafile, capath = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not (cafile or capath):
        import certifi  # noqa: PLC0415 - only connecting by TLS needs it

        cafile = certifi.where()
    context = ssl.create_default_context(cafile=cafile, capath=capath)
    context.set_alpn_protocols(["http/1.1"])
    return context


class TLSLayer:
    """The client's side of TLS without I/O.

    After every operation, send what `outgoing()` returns: handshakes, key updates and alerts
    write to the peer, too. After `decrypt` and `feed_eof`, look at `failure` and `ended`.
    Neither method raises, because plaintext may precede what broke the connection.

    :raises ValueError: If the host name cannot be one.
    """

    __slots__ = ("_incoming", "_outgoing", "ended", "failure", "ssl_object")

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        """For the TLS version and the peer's certificate."""
        self.ended = False
        """True once the peer has ended TLS with `close_notify`: an orderly end."""
        self.failure: TLSBroken | None = None
        """The reason why nothing more can be received."""

    def do_handshake(self, data: bytes = b"") -> bool:
        """Feed ciphertext to the handshake, and return True once it is complete.

        What arrived behind the handshake stays inside: call `decrypt(b"")` before waiting for the
        socket.

        :raises ssl.SSLError: If the handshake fails.
        """
        self._incoming.write(data)
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self, data: bytes) -> bytes:
        """Feed ciphertext, and return all plaintext that it completes.

        Session tickets and the like give `b""`. What follows `close_notify` is ignored.
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
            # without a further read, which would cost an exception
            if not self._incoming.pending and not self.ssl_object.pending():
                break
        return b"".join(pieces)

    def encrypt(self, data: bytes) -> None:
        """Encrypt data for the peer: `outgoing()` returns the ciphertext.

        A renegotiation (TLS 1.2) that the peer begins while a request is sent is a `failure`.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self.ssl_object.write(rest) :]
        except ssl.SSLError as error:
            self._fail(reason_of(error))

    def outgoing(self) -> bytes:
        """Return, once, the bytes that are to be sent to the peer."""
        return self._outgoing.read()

    def feed_eof(self) -> None:
        """Take note that no more ciphertext comes.

        Without `close_notify` before it this is a `failure`: anybody on the way can cut the
        connection, so it says nothing about the end of what the peer sends.
        """
        if not self.ended:
            self._fail("the peer closed the connection without ending TLS")

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            self.failure = TLSBroken(reason)


async def start_tls(
    opening: OpeningSocket, host: str, ssl_context: ssl.SSLContext | None
) -> TLSLayer:
    """Do the handshake, with verification of the host's certificate.

    The caller closes the socket if this raises.

    :param ssl_context: `None` for `default_ssl_context()`
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
            "it chose HTTP/2, which ssl_context offers and this client does not speak; "
            'call ssl_context.set_alpn_protocols(["http/1.1"])'
        )
    raise ConnectFailure(f"could not connect to {host}: {reason}", final=final)
