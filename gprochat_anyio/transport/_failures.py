"""How an exchange over the network can fail, before anybody decided what that means.

The client turns these into `GPROChatError`s, `AnyIOTransport` into httpx's own exceptions.
"""

from __future__ import annotations

import os


class TransportFailure(Exception):  # noqa: N818 - what users see is an error, this is its cause
    """Base of all failures of the network or of the peer."""


class ConnectFailure(TransportFailure):
    """No connection could be made: name lookup, TCP, TLS."""


class ProxyFailure(ConnectFailure):
    """The proxy refused, or did not understand."""


class ConnectionLost(TransportFailure):
    """The connection ended or broke before the answer was complete.

    :param answered: whether any byte of the answer had arrived
    :param reused: whether the connection had been kept alive from an earlier exchange
    :param reset: whether it broke, rather than being closed in an orderly way
    """

    def __init__(self, message: str, *, answered: bool, reused: bool, reset: bool) -> None:
        super().__init__(message)
        self.answered = answered
        self.reused = reused
        self.reset = reset

    @property
    def stale(self) -> bool:
        """Whether it was a kept connection that the peer had most likely closed already."""
        return self.reused and not self.answered


class ProtocolViolation(TransportFailure):
    """The peer does not speak HTTP/1.1 as RFC 9112 has it, or sends more than anybody needs."""


class TimedOut(TransportFailure):
    """A limit of a foreign transport's own ran out.

    :param connecting: whether that was before the connection was made
    """

    def __init__(self, message: str, *, connecting: bool) -> None:
        super().__init__(message)
        self.connecting = connecting


def reason_of(error: BaseException) -> str:
    """What the operating system said, once, out of anyio's nest of groups."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(reason_of(e) for e in cause.exceptions))
    if cause is not None:
        return reason_of(cause)
    if isinstance(error, OSError) and error.strerror:
        # AnyIO and the event loops put their own words there; getaddrinfo and ssl, own numbers
        number = 0 if type(error).__module__ == "ssl" else error.errno or 0
        return os.strerror(number) if number > 0 else error.strerror
    return str(error) or "the peer closed the connection"


def single(group: BaseExceptionGroup) -> BaseException:
    """The exception that task groups made into groups: Ctrl-C, which can hit any task."""
    first = group.exceptions[0]
    return single(first) if isinstance(first, BaseExceptionGroup) else first
