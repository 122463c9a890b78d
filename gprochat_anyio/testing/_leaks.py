"""What is left behind: tasks, sockets, connection slots."""

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

# Background tasks of the library's own: these watch connections, which are counted themselves;
# all others have been cancelled by the end of a request, and end in the next turns of the loop.
_WATCHING = ("gprochat_anyio reactor", "gprochat_anyio reader")
_OWN = "gprochat_anyio "
_TURNS = 10


class _Held(NamedTuple):
    tasks: dict[int, anyio.TaskInfo]  # their coroutines are kept, so that no id comes again
    sockets: dict[tuple[int, int], str]
    available: list[float]


@asynccontextmanager
async def no_leaks(*clients: Client, grace: float = 0.0) -> AsyncIterator[None]:
    """Fail if the block leaves something behind that was not there when it began.

    That is tasks of this event loop, sockets of this process (where the system lists them: Linux
    and macOS), and slots of the given clients' connection pools. Connections that these clients
    keep for their next request are none. The garbage collector is off in the block, so that it
    can not tidy up what the program should have closed.

    A server in the same event loop, such as `live_site`, has tasks and sockets too, which end a
    little later than the client's: give it some `grace`, or use a site in memory.

    :param grace: how many seconds to wait for what is still about to end
    :raises AssertionError: at the end, with a list of what is left; if the block raises, or is
        cancelled, that leaves as it is and nothing is checked
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
    """The sockets that this process has open, by their number and inode, in words."""
    found = {}
    for number in _descriptors():
        try:
            status = os.fstat(number)
        except OSError:  # it was the list's own
            continue
        if stat.S_ISSOCK(status.st_mode) and number not in but:
            found[number, status.st_ino] = _described(number)
    return found


def _descriptors() -> list[int]:
    for listing in _LISTS_OF_DESCRIPTORS:
        if os.path.isdir(listing):  # noqa: PTH112 - at once, and of no import
            return sorted(map(int, os.listdir(listing)))  # noqa: PTH208
    return []


def _described(number: int) -> str:
    with socket.socket(fileno=os.dup(number)) as copy:
        try:
            peer = copy.getpeername()
        except OSError:
            return f"{number}, not connected"
    return f"{number}, connected to {peer}"
