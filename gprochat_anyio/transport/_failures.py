"""Failures of an exchange over the network, before the caller decides their meaning.

The client maps these to `GPROChatError`s, `AnyIOTransport` to httpx's own exceptions.
"""

from __future__ import annotations

import os
import socket


class TransportFailure(Exception):  # noqa: N818 - what users see is an error, this is its cause
    """Base of all failures of the network or of the peer."""


class ConnectFailure(TransportFailure):
    """No connection could be made: name lookup, TCP, proxy or TLS.

    :param final: True if a further attempt with the same settings must fail as well
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class ProxyFailure(ConnectFailure):
    """The proxy cannot be reached, refused, or sent something invalid.

    It is `final` if the proxy refused the credentials, or asks for some.
    """


class ConnectionLost(TransportFailure):
    """The connection ended or broke before the response was complete.

    :param answered: True if any byte of the response had arrived
    :param reused: True if the connection had been kept alive from an earlier exchange
    :param reset: True if it broke, rather than being closed in an orderly way
    """

    def __init__(self, message: str, *, answered: bool, reused: bool, reset: bool) -> None:
        super().__init__(message)
        self.answered = answered
        self.reused = reused
        self.reset = reset

    @property
    def stale(self) -> bool:
        """True for a kept connection that the peer had most likely closed already."""
        return self.reused and not self.answered


class TLSBroken(TransportFailure):
    """The peer broke the TLS protocol, or ended the connection without ending TLS."""


class ProtocolViolation(TransportFailure):
    """The peer violates HTTP/1.1 (RFC 9112), or sends more than the limits allow."""


class Unreadable(TransportFailure):
    """What was read of a response is lost: by a defect of the library, or by an interrupt."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            "the response could not be read, by a defect of gprochat_anyio: see the log "
            "`gprochat_anyio` for its traceback, and report it"
            if isinstance(error, Exception)
            else f"an interrupt ({type(error).__name__}) hit while the response was read; ask again"
        )


class TimedOut(TransportFailure):
    """A limit of a foreign transport ran out.

    :param connecting: True if that was before the connection was made
    """

    def __init__(self, message: str, *, connecting: bool) -> None:
        super().__init__(message)
        self.connecting = connecting


def reason_of(error: BaseException) -> str:
    """Return the operating system's message, once, from any nest of exception groups."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(reason_of(e) for e in cause.exceptions))
    if cause is not None:
        return reason_of(cause)
    if isinstance(error, OSError) and error.strerror:
        # AnyIO and the event loops put their own words there; getaddrinfo and ssl, own numbers
        foreign = isinstance(error, socket.gaierror) or type(error).__module__ == "ssl"
        number = 0 if foreign else error.errno or 0
        return system_message(number) if number > 0 else error.strerror
    return str(error) or "the peer closed the connection"


def system_message(number: int) -> str:
    """Return the operating system's message for an error number, Winsock's included."""
    winsock: dict[int, str] = getattr(socket, "errorTab", {})  # exists on Windows only
    return winsock.get(number) or os.strerror(number)


def single(group: BaseExceptionGroup) -> BaseException:
    """Return the exception that task groups wrapped: Ctrl-C can arrive in any task."""
    first = group.exceptions[0]
    return single(first) if isinstance(first, BaseExceptionGroup) else first
