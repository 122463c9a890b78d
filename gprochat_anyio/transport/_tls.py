"""TLS on a connection that is already made. Imported when first needed: `ssl` takes 13 ms."""

from __future__ import annotations

import os
import ssl
from functools import cache

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute, TLSStream

from ._failures import ConnectFailure, reason_of

_UNKNOWN_AUTHORITY = (18, 19, 20)  # OpenSSL's X509_V_ERR_*: self-signed, or no issuer was found


@cache
def default_ssl_context() -> ssl.SSLContext:
    """The one verifying context that is shared by all who bring none: it takes 20 ms to make.

    Certificate authorities are those of SSL_CERT_FILE or SSL_CERT_DIR where set, else certifi's.
    """
    cafile, capath = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not (cafile or capath):
        import certifi  # noqa: PLC0415 - only who connects by TLS needs it

        cafile = certifi.where()
    context = ssl.create_default_context(cafile=cafile, capath=capath)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def start_tls(
    stream: ByteStream, host: str, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    """Do the handshake, with verification of the host's certificate.

    The caller closes the stream if this raises.

    :param ssl_context: None takes `default_ssl_context()`
    :raises ConnectFailure: if the handshake fails
    """
    try:
        return await TLSStream.wrap(
            stream,
            server_side=False,
            hostname=host,
            ssl_context=ssl_context or default_ssl_context(),
        )
    except ssl.SSLCertVerificationError as error:
        reason = f"its certificate is not valid: {error.verify_message}"
        if error.verify_code in _UNKNOWN_AUTHORITY:
            reason += " (for an authority of your own, give ssl_context or set SSL_CERT_FILE)"
    except (OSError, ValueError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        reason = f"the TLS handshake failed: {reason_of(error)}"
    raise ConnectFailure(f"could not connect to {host}: {reason}")


def has_unread(stream: ByteStream) -> bool:
    """Whether data, or the end, was received that nobody has read; finding data spoils it."""
    try:
        stream.extra(TLSAttribute.ssl_object).read(1)  # noqa: S610 - not Django's
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass
    return True
