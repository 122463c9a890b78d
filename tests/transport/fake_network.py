"""A network whose connections are only open or closed, for a pool in virtual time."""

from __future__ import annotations

from typing import Any

import anyio

from gprochat_anyio.transport._connecting import Opened
from gprochat_anyio.transport._connection import Connection
from gprochat_anyio.transport._failures import ConnectFailure
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._target import Target

from .exchanges import no_stage

HERE = Target("http", "site.test", 80)
THERE = Target("http", "site.test", 81)


class Clock:
    """The parts of a reactor that a pool uses."""

    @property
    def now(self) -> float:
        return anyio.current_time()

    def clock(self) -> float:
        return anyio.current_time()

    def join(self) -> None:
        pass

    def leave(self) -> None:
        pass


class Fake:
    """A connection that is just open or closed."""

    on_unsolicited = receiver = None
    reused = False
    expires = 0.0

    def __init__(self, number: int, target: Target, reactor: Any) -> None:
        self.number = number
        self.target = target
        self.reactor = reactor
        self.closed = False

    def is_quiet(self) -> bool:
        return not self.closed

    def close(self) -> None:
        self.closed = True


class Network:
    """A replacement of connecting that counts connections."""

    def __init__(self) -> None:
        self.connections: list[Fake] = []
        self.delay = 0.0
        self.failing = False

    async def connect(self, target: Target, **_: object) -> Opened:
        await anyio.sleep(self.delay)
        if self.failing:
            raise ConnectFailure("could not connect")
        nothing: Any = None
        return Opened(nothing, ())

    def connection(self, _: object, __: object, target: Target, reactor: Any) -> Fake:
        self.connections.append(Fake(len(self.connections), target, reactor))
        return self.connections[-1]

    @property
    def open(self) -> list[int]:
        return [connection.number for connection in self.connections if not connection.closed]


def number(connection: Connection) -> int:
    assert isinstance(connection, Fake)
    return connection.number


async def acquire(pool: Pool, target: Target = HERE, **options: bool) -> Connection:
    with anyio.fail_after(1000):
        return await pool.acquire(target, no_stage, **options)
