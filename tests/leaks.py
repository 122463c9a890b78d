"""Operations cancelled at each of their suspensions, once or twice, and what they leave behind."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import anyio
import pytest
from anyio.lowlevel import checkpoint
from prompted import pool_of

from gprochat_anyio import Client
from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.testing._injection import End, Moment, _Steps

Operation = Callable[[Client], Awaitable[object]]

# what the tests' own servers and proxies run; the latter connect to servers
_SERVING = ("Server.serve", "Listener.serve", "pass_on", "try_connect")

_REACTOR = "gprochat_anyio reactor"  # of Trio's: it ends in the turn after its last connection


class How(NamedTuple):
    """By what an operation is cancelled, first and then again: scopes, or asyncio's own way."""

    moment: Moment
    natives: tuple[bool, ...]


def hows(*, twice: bool) -> Iterator[How]:
    """All that there are on this loop; for two cancels, also one in each way."""
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
    """Where requests go: a way to a site, or to something that never answers.

    :param settings: of the clients
    :param servers: ports of servers in this process, whose own ends are not counted
    :param behind: ports that only a proxy in this process connects to
    :param kept: whether each client has a kept connection when it begins
    :param answers: whether the next request can succeed
    """

    url: str
    settings: dict[str, Any]
    servers: set[int]
    behind: set[int] = field(default_factory=set)
    kept: bool = False
    answers: bool = True
    connections: int = 3
    tried: int = 0
    """How many cancelled runs there were."""

    def client(self) -> Client:
        return Client(self.url, max_connections=self.connections, trust_env=False, **self.settings)

    def held(self, client: Client | None = None) -> dict[Any, str]:
        """Descriptors of any kind and tasks, but for the servers', the kept connections, and the
        reactor of these."""
        kept = set()
        if client is not None:
            for connection in pool_of(client).statistics().idle:
                kept.add(connection.fileno())
                kept.add(connection.reactor._selector.fileno())
        found: dict[Any, str] = {}
        for number in sorted(map(int, os.listdir("/proc/self/fd"))):  # noqa: PTH208
            if number not in kept and (described := self._described(number)):
                found[number, described] = described
        for task in anyio.get_running_tasks():
            name = task.name or ""
            if name != _REACTOR and not any(serving in name for serving in _SERVING):
                found[task.id] = f"task {name}"
        return found

    def _described(self, number: int) -> str:
        try:
            status = os.fstat(number)
            if not stat.S_ISSOCK(status.st_mode):
                path = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
                return "" if path == os.devnull else path  # uvloop keeps one, sooner or later
        except OSError:  # the list's own
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

    async def nothing_is_left(self, operation: Operation, *, twice: bool = False) -> int:
        """Cancel an operation everywhere, in every way, each time with a client of its own.

        :param twice: also at every pair of its suspensions
        :return: how many suspensions it had at the most
        """
        most = 0
        for how in hows(twice=twice):
            at, end = 0, ""
            while True:
                at += 1
                if len(how.natives) == 1:
                    end = await self._once(how, (at,), operation)
                    if end == "not reached":
                        break
                    continue
                again = at
                while end != "not reached":
                    again += 1
                    end = await self._once(how, (at, again), operation)
                if again == at + 1:
                    break
                end = ""
            most = max(most, at)
        return most

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
    """Make sure that the reactor's task ends by itself, within two turns of the event loop."""
    for _ in range(2):
        await checkpoint()
    assert _REACTOR not in {task.name for task in anyio.get_running_tasks()}


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
