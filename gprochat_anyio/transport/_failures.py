"""Failures of the transport.

The client maps them to `GPROChatError`, and `AnyIOTransport` to httpx's exceptions.
"""

from __future__ import annotations

import os
import socket


class TransportFailure(Exception):  # noqa: N818 - internal; users see the errors made from it
    """Base class of failures of the network or the peer."""


class ConnectFailure(TransportFailure):
    """Connecting failed: name resolution, TCP, proxy or TLS.

    :param final: True if another attempt with the same settings would fail as well.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class ProxyFailure(ConnectFailure):
    """The proxy is unreachable, refused the request, or violated its protocol.

    The failure is `final` if the proxy rejected the credentials or requires some.
    """


class ConnectionLost(TransportFailure):
    """The connection ended or broke before the response was complete.

    :param answered: True if at least one byte of the response had arrived.
    :param reused: True if the connection had been kept alive after an earlier exchange.
    :param reset: True if the connection broke, False if the peer closed it in an orderly way.
    """

    def __init__(self, message: str, *, answered: bool, reused: bool, reset: bool) -> None:
        super().__init__(message)
        self.answered = answered
        self.reused = reused
        self.reset = reset

    @property
    def stale(self) -> bool:
        """True for a kept-alive connection that the peer had probably closed before the request."""
        return self.reused and not self.answered


class TLSBroken(TransportFailure):
    """The peer violated the TLS protocol, or closed the connection without `close_notify`."""


class ProtocolViolation(TransportFailure):
    """The peer violated HTTP/1.1 (RFC 9112), or exceeded a size limit."""


class Unreadable(TransportFailure):
    """Data read from a response was lost, because of a bug in the library or an interrupt."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            "the response could not be read because of a bug in gprochat_anyio; please report it "
            "with the traceback in the log `gprochat_anyio`"
            if isinstance(error, Exception)
            else f"{type(error).__name__} interrupted the reading of the response; ask again"
        )


class TimedOut(TransportFailure):
    """A foreign transport timed out.

    :param connecting: True if the connection had not been made yet.
    """

    def __init__(self, message: str, *, connecting: bool) -> None:
        super().__init__(message)
        self.connecting = connecting


def reason_of(error: BaseException) -> str:
    """Return the operating system's messages in an exception or nested groups, without
    repetition."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(reason_of(e) for e in cause.exceptions))
    if cause is not None:
        return reason_of(cause)
    if isinstance(error, OSError) and error.strerror:
        # AnyIO and the event loops put their own text there; getaddrinfo and ssl have own numbers
        foreign = isinstance(error, socket.gaierror) or type(error).__module__ == "ssl"
        number = 0 if foreign else error.errno or 0
        return system_message(number) if number > 0 else error.strerror
    return str(error) or "the peer closed the connection"


def system_message(number: int) -> str:
    """Return the operating system's message for an error number, including Winsock's."""
    winsock: dict[int, str] = getattr(socket, "errorTab", {})  # exists on Windows only
    return winsock.get(number) or os.strerror(number)


def single(group: BaseExceptionGroup) -> BaseException:
    """Return the single exception that task groups wrapped, as Ctrl-C can be raised in any task."""
    first = group.exceptions[0]
    return single(first) if isinstance(first, BaseExceptionGroup) else first
