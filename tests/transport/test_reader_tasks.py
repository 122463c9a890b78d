"""Reader tasks, for selectors without a descriptor: the differences to reactors with one."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.loops import virtual
from support.reactors import force_reader_tasks

from gprochat_anyio.transport._reactor import current_reactor
from gprochat_anyio.transport._reader_tasks import ReaderTasks

from .watching import Never, watched


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    force_reader_tasks(monkeypatch)


async def test_they_replace_the_selector() -> None:
    with watched() as one:
        assert isinstance(one.connection.reactor._selector, ReaderTasks)


async def test_a_cancelled_reader_does_not_call_the_receiver() -> None:
    for ticks in range(6):
        with watched() as one:
            await all_tasks_blocked()
            one.other.send(b"data")
            for _ in range(ticks):
                await checkpoint()
            told = list(one.listening.told)
            one.connection.pause()
            for _ in range(6):
                await checkpoint()
            assert one.listening.told == told
            one.connection.resume()
            await one.listening.until(b"data")


@virtual
async def test_deadlines_need_no_descriptor() -> None:
    class Timed(Never):
        def due(self, now: float) -> float:
            return began + 5

        def expire(self) -> None:
            expired.append(anyio.current_time())

    reactor = current_reactor()
    reactor.join()
    began, expired = anyio.current_time(), list[float]()
    reactor.add_deadline(began + 5, Timed())
    await anyio.sleep(10)
    assert expired == [pytest.approx(began + 5)]
    reactor.leave()
