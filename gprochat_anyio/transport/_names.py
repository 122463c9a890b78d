"""Name resolution, and connecting to the first address that accepts.

A function that raises or is cancelled first closes the sockets that it has opened.
"""

from __future__ import annotations

import errno
import socket
from functools import lru_cache
from itertools import zip_longest
from typing import Any, TypeAlias

import anyio
from anyio.lowlevel import RunVar, checkpoint, checkpoint_if_cancelled

from ._failures import reason_of, single, system_message
from ._reactor import current_reactor

Address: TypeAlias = tuple[int, Any]
"""An address family, and an address in the socket module's format."""

ATTEMPT_DELAY = 0.25
"""Delay before the next address is tried concurrently, in seconds (RFC 8305, section 5)."""

_LOOKUP_THREADS = 64

_IN_PROGRESS = (errno.EINPROGRESS, 10035)  # WSAEWOULDBLOCK; EAGAIN is a Unix socket's refusal

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("gprochat_anyio name lookups")


async def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host in the order to try them, with alternating families.

    A name is looked up in a thread. These threads have their own limit, so an application's busy
    threads cannot delay a lookup. Cancellation abandons the thread.

    :param host: An ASCII name, or an IP address with or without a scope, which needs no thread.
    :raises OSError: If the name has no address.
    :raises ValueError: If the host is not ASCII.
    """
    name = host.encode("ascii")
    if numeric := _parse(name, port):
        return numeric
    found = await anyio.to_thread.run_sync(
        _look_up, name, port, 0, abandon_on_cancel=True, limiter=_lookup_limiter()
    )
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    return [address for pair in zip_longest(first, others) for address in pair if address]


@lru_cache(maxsize=64)
def _parse(name: bytes, port: int) -> list[Address]:
    """Return an IP address as a list, or an empty list for a name."""
    try:
        return _look_up(name, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []


def _look_up(name: bytes, port: int, flags: int) -> list[Address]:
    entries = socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM, 0, flags)
    return list(dict.fromkeys((entry[0], entry[4]) for entry in entries))


def _lookup_limiter() -> anyio.CapacityLimiter:
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_LOOKUP_THREADS)
        _limiter.set(limiter)
    return limiter


async def connect_first(addresses: list[Address]) -> socket.socket:
    """Connect to the first address that accepts (Happy Eyeballs, RFC 8305).

    The next address is tried when an attempt fails, or after `ATTEMPT_DELAY`.

    :raises OSError: If none accepts. The message has each distinct reason.
    """
    if len(addresses) == 1:
        return await connect_to(*addresses[0])
    connected: list[socket.socket] = []
    try:
        reasons = await _attempt(addresses, connected)
    except BaseException:
        for made in connected:
            made.close()
        raise
    for late in connected[1:]:
        late.close()
    if not connected:
        raise OSError("; ".join(reasons))
    return connected[0]


async def _attempt(addresses: list[Address], connected: list[socket.socket]) -> dict[str, None]:
    """Try the addresses until a socket is connected. Return the reasons of failed attempts."""
    reasons: dict[str, None] = {}
    failed = anyio.Event()

    async def attempt(address: Address) -> None:
        try:
            connected.append(await connect_to(*address))
        except OSError as error:
            reasons[reason_of(error)] = None
            failed.set()
        else:
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, address)
                with anyio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()
    except BaseExceptionGroup as error:
        raise single(error) from None
    return reasons


async def connect_to(family: int, address: Any) -> socket.socket:
    """Connect a non-blocking socket. This is always a checkpoint.

    :raises OSError: If the connection fails.
    """
    await checkpoint_if_cancelled()
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        if family in (socket.AF_INET, socket.AF_INET6):
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = connecting.connect_ex(address)
        if failure in _IN_PROGRESS and _is_connected(connecting):
            failure = 0
        if failure in _IN_PROGRESS:
            await current_reactor().wait_writable(connecting.fileno())
            failure = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            await checkpoint()
        if failure:
            raise OSError(failure, system_message(failure))  # noqa: TRY301 - closed below, as for any error
    except BaseException:
        connecting.close()
        raise
    return connecting


def _is_connected(connecting: socket.socket) -> bool:
    """Return True if the socket is connected already, as over loopback."""
    try:
        connecting.getpeername()
    except OSError:
        return False
    return True


def authority_of(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
