"""Operations cancelled at each of their suspensions, once or twice, and checked for leaks."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, repeat
from typing import Any, NamedTuple

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gprochat_anyio import Client
from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.testing._injection import End, Moment, _Steps
from gprochat_anyio.transport._reader_tasks import ReaderTasks

from .prompted import pool_of

Operation = Callable[[Client], Awaitable[object]]

# tasks of the tests' own servers and proxies; the latter connect to servers
_SERVING = ("Server.serve", "Listener.serve", "pass_on", "try_connect")

# the reactor's tasks; some end one turn after the last connection
_REACTOR = ("gprochat_anyio reactor", "gprochat_anyio reader")


class How(NamedTuple):
    """A way to cancel an operation, first and again: by scopes, or by asyncio's `Task.cancel`."""

    moment: Moment
    natives: tuple[bool, ...]


def hows(*, twice: bool) -> Iterator[How]:
    """Yield all ways on this event loop. For two cancellations, also mixed ones."""
    for moment, native in injections():
        yield How(moment, (native,))
        if twice:
            for _, again in injections()[::2]:
                yield How(moment, (native, again))


async def cancelled_in(how: How, at: tuple[int, ...], operation: Callable[[], Any]) -> End:
    """Run an operation, cancelled at its k-th suspension, and at a later one."""
    injection = Injection(at[0], how.moment, how.natives[0], at[1] if len(at) > 1 else None)
    if len(set(how.natives)) == 1:
        return await cancelled(injection, operation)
    scope, steps = anyio.CancelScope(), []

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        ways: list[Callable[[], Any]] = [scope.cancel, task.cancel]
        first, again = ways[:: -1 if how.natives[0] else 1]
        steps.append(_Steps(injection, first, again))
        with scope:
            await steps[0].run(operation())

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return steps[0].end(caught=task.cancelled() or scope.cancelled_caught)


@dataclass
class Place:
    """The target of requests: a way to a site, or to a peer that never responds.

    :param settings: The settings of the clients.
    :param servers: Ports of servers in this process, whose own sockets are not counted.
    :param behind: Ports to which only a proxy in this process connects.
    :param kept: True if each client has an idle connection at the start.
    :param answers: True if the next request can succeed.
    """

    url: str
    settings: dict[str, Any]
    servers: set[int]
    behind: set[int] = field(default_factory=set)
    kept: bool = False
    answers: bool = True
    connections: int = 3
    tried: int = 0
    """Number of cancelled runs."""

    def client(self) -> Client:
        return Client(self.url, max_connections=self.connections, trust_env=False, **self.settings)

    def held(self, client: Client | None = None) -> dict[Any, str]:
        """Return all descriptors and tasks, except those of servers, idle connections and their
        reactor."""
        kept = set()
        if client is not None:
            for connection in pool_of(client).statistics().idle:
                kept.add(connection.fileno())
                selector = connection.reactor._selector
                if not isinstance(selector, ReaderTasks):
                    kept.add(selector.fileno())
        found: dict[Any, str] = {}
        for number in sorted(map(int, os.listdir("/proc/self/fd"))):  # noqa: PTH208
            if number not in kept and (described := self._described(number)):
                found[number, described] = described
        for task in anyio.get_running_tasks():
            name = task.name or ""
            if name not in _REACTOR and not any(serving in name for serving in _SERVING):
                found[task.id] = f"task {name}"
        return found

    def _described(self, number: int) -> str:
        try:
            status = os.fstat(number)
            if not stat.S_ISSOCK(status.st_mode):
                path = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
                return "" if path == os.devnull else path  # uvloop opens one at some time
        except OSError:  # the descriptor of the listing itself
            return ""
        sock = socket.socket(fileno=number)
        try:
            if sock.family == socket.AF_UNIX:
                return f"pair {status.st_ino}"
            if sock.getsockname()[1] in self.servers:
                return ""
            to = sock.getpeername()[1] if _is_connected(sock) else 0
            return "" if to in self.behind else f"socket {status.st_ino} to {to}"
        finally:
            sock.detach()

    async def nothing_is_left(self, operation: Operation) -> None:
        """Cancel an operation at every suspension, in every way, each time with a new client."""
        for way in hows(twice=False):
            at = 1
            while await self._once(way, (at,), operation) != "not reached":
                at += 1

    async def nothing_is_left_twice(self, operation: Operation, *, full: bool) -> None:
        """Cancel an operation at every pair of its suspensions.

        :param full: Cancel each pair in every way, rather than in alternating ways.
        """
        ways = list(hows(twice=True))
        for turns in [repeat(way) for way in ways] if full else [cycle(ways)]:
            at, again = 0, 0
            while again != at + 1:
                at += 1
                again = at + 1
                while await self._once(next(turns), (at, again), operation) != "not reached":
                    again += 1

    async def _once(self, how: How, at: tuple[int, ...], operation: Operation) -> End:
        before = self.held()
        client = self.client()
        if self.kept:
            await client.ask("next")
        end = await cancelled_in(how, at, lambda: operation(client))
        left = {what: said for what, said in self.held(client).items() if what not in before}
        place = f"at {at}, {how}: {end}"
        assert not left, f"{list(left.values())} {place}"
        available, _, waiting = pool_of(client).statistics()
        assert (available, waiting) == (self.connections, 0), f"a slot is lost {place}"
        if self.answers:
            with anyio.fail_after(10):
                assert (await client.ask("next")).text == "next", place
        await client.aclose()
        assert self.held().keys() <= before.keys(), f"after aclose {place}"
        await reactor_has_ended()
        self.tried += 1
        return end


async def reactor_has_ended() -> None:
    """Assert that the reactor's tasks end by themselves, within two turns of the event loop."""
    for _ in range(2):
        await checkpoint()
    assert not {task.name for task in anyio.get_running_tasks()} & {*_REACTOR}


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"),  # noqa: PTH112
    reason="descriptors are listed on Linux only",
)
