"""Detection of leaked tasks, sockets and connection slots."""

from __future__ import annotations

import gc
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from gprochat_anyio import Client
from gprochat_anyio._request.chat_client import opener_of

_LISTS_OF_DESCRIPTORS = ("/proc/self/fd", "/dev/fd")

# The library's own background tasks. These watch connections, which are counted separately. All
# others are cancelled at the end of a request, and end in the event loop's next turns.
_WATCHING = ("gprochat_anyio reactor", "gprochat_anyio reader")
_OWN = "gprochat_anyio "
_TURNS = 10


class _Held(NamedTuple):
    tasks: dict[int, anyio.TaskInfo]  # the references to their coroutines prevent reuse of an id
    sockets: dict[tuple[int, int], str]
    available: list[float]


@asynccontextmanager
async def no_leaks(*clients: Client, grace: float = 0.0) -> AsyncIterator[None]:
    """Check that the block leaves no task, socket or connection slot that was not there before.

    The check covers tasks of this event loop, sockets of this process (on Linux and macOS), and
    slots of the given clients' connection pools. Idle connections of these clients are not leaks.
    The garbage collector is disabled within the block, so that it cannot close what the program
    should have closed.

    A server in the same event loop, such as `live_site`, has tasks and sockets as well, which end
    slightly later than the client's. Use `grace` for it, or an in-memory site.

    :param grace: Maximum time to wait for tasks and sockets to end, in seconds.
    :raises AssertionError: At the end, with a list of the leaks. If the block raises or is
        cancelled, its exception propagates and nothing is checked.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        before = _held(clients)
        yield
        until = anyio.current_time() + grace
        left = _left(before, _held(clients))
        for _ in range(_TURNS):
            if any(what.startswith(f"task {_OWN}") for what in left):
                await cancel_shielded_checkpoint()
                left = _left(before, _held(clients))
        while left and anyio.current_time() < until:
            await anyio.sleep(min(0.01, grace))
            left = _left(before, _held(clients))
    finally:
        if collects:
            gc.enable()
    if left:
        raise AssertionError("left behind:\n" + "\n".join(f"  {what}" for what in left))


def _left(before: _Held, after: _Held) -> list[str]:
    left = [f"task {t.name}" for key, t in after.tasks.items() if key not in before.tasks]
    left += [f"socket {s}" for key, s in after.sockets.items() if key not in before.sockets]
    for number, (had, has) in enumerate(zip(before.available, after.available, strict=True)):
        if has < had:
            left.append(f"{had - has:g} connection slots of client {number + 1}")
    return left


def _held(clients: tuple[Client, ...]) -> _Held:
    pools = [
        pool.statistics() for client in clients if (pool := opener_of(client).pool) is not None
    ]
    kept = {connection.fileno() for pool in pools for connection in pool.idle}
    return _Held(
        {id(t.coro): t for t in anyio.get_running_tasks() if t.name not in _WATCHING},
        _open_sockets(kept),
        [pool.available for pool in pools],
    )


def _open_sockets(but: set[int]) -> dict[tuple[int, int], str]:
    """Return descriptions of the process's open sockets, by descriptor and inode."""
    found = {}
    for number in _descriptors():
        try:
            status = os.fstat(number)
        except OSError:  # the descriptor of the listing itself
            continue
        if stat.S_ISSOCK(status.st_mode) and number not in but:
            found[number, status.st_ino] = _described(number)
    return found


def _descriptors() -> list[int]:
    for listing in _LISTS_OF_DESCRIPTORS:
        if os.path.isdir(listing):  # noqa: PTH112 - faster than pathlib
            return sorted(map(int, os.listdir(listing)))  # noqa: PTH208
    return []


def _described(number: int) -> str:
    with socket.socket(fileno=os.dup(number)) as copy:
        try:
            peer = copy.getpeername()
        except OSError:
            return f"{number}, not connected"
    return f"{number}, connected to {peer}"
