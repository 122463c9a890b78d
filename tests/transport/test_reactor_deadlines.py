"""The reactor's heap of deadlines: the order of calls, and removed deadlines."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import anyio
import pytest
from support.loops import virtual

from gprochat_anyio.transport._reactor import Deadline, Reactor, current_reactor


class Loop:
    """An event loop whose time the test sets, and which calls nothing by itself."""

    def __init__(self) -> None:
        self.now = 0.0
        self.armed = inf
        self.stopped = False
        self.spawn = self.signal = None

    def clock(self) -> float:
        return self.now

    def start(self, *_: object) -> None:
        pass

    def arm(self, at: float) -> None:
        self.armed = at

    def stop(self) -> None:
        self.stopped = True


class Operation:
    """An operation that records its calls.

    :param look: Simulates the data that has arrived by the deadline.
    """

    def __init__(self, due: float, look: Callable[[], None] = lambda: None) -> None:
        self.due_at = due
        self.told: list[str] = []
        self._look = look

    def due(self, now: float) -> float:
        self.told.append("due")
        return self.due_at

    def look(self) -> None:
        self.told.append("look")
        self._look()

    def expire(self) -> None:
        self.told.append("expire")


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def reactor(loop: Loop) -> Iterator[Reactor]:
    stand_in: Any = loop
    made = Reactor(stand_in)
    made.join()
    yield made
    if not made.closed:
        made.leave()
    assert loop.stopped


class TestDue:
    def test_it_looks_before_it_expires(self, loop: Loop, reactor: Reactor) -> None:
        operation = Operation(5)
        entry = reactor.add_deadline(5, operation)
        assert loop.armed == 5
        loop.now = 5
        reactor.expire()
        assert operation.told == ["due", "look", "due", "expire"]
        assert entry.watched is None
        assert reactor.now == 5
        assert loop.armed == inf
        loop.now = 10
        reactor.expire()
        assert operation.told.count("expire") == 1

    def test_no_call_before_the_deadline(self, loop: Loop, reactor: Reactor) -> None:
        operation = Operation(5)
        reactor.add_deadline(5, operation)
        loop.now = 4.9
        reactor.expire()
        assert operation.told == []
        assert loop.armed == 5

    def test_a_deadline_that_has_moved(self, loop: Loop, reactor: Reactor) -> None:
        """Arriving text does not update the heap, which asks the operation in time."""
        operation = Operation(5)
        reactor.add_deadline(5, operation)
        operation.due_at = 8
        loop.now = 6
        reactor.expire()
        assert operation.told == ["due"]
        assert loop.armed == 8
        loop.now = 8
        reactor.expire()
        assert operation.told[-1] == "expire"

    def test_arrived_data_moves_it(self, loop: Loop, reactor: Reactor) -> None:
        def arrived() -> None:
            operation.due_at = 9

        operation = Operation(5, arrived)
        reactor.add_deadline(5, operation)
        loop.now = 6
        reactor.expire()
        assert operation.told == ["due", "look", "due"]
        assert loop.armed == 9

    def test_arrived_data_ends_it(self, loop: Loop, reactor: Reactor) -> None:
        operation = Operation(5, lambda: reactor.drop_deadline(entry))
        entry = reactor.add_deadline(5, operation)
        other = Operation(7)
        reactor.add_deadline(7, other)
        loop.now = 6
        reactor.expire()
        assert operation.told == ["due", "look"]
        assert loop.armed == 7

    def test_look_adds_another(self, loop: Loop, reactor: Reactor) -> None:
        """It is earlier, and becomes the top of the heap."""
        other = Operation(5.5)
        operation = Operation(5, lambda: added.append(reactor.add_deadline(5.5, other)))
        added: list[Deadline] = []
        reactor.add_deadline(5, operation)
        loop.now = 6
        reactor.expire()
        assert operation.told[-1] == other.told[-1] == "expire"
        assert reactor._deadlines == []

    def test_look_removes_another(self, loop: Loop, reactor: Reactor) -> None:
        other = Operation(5.5)
        entry = reactor.add_deadline(5.5, other)
        reactor.add_deadline(5, Operation(5, lambda: reactor.drop_deadline(entry)))
        loop.now = 6
        reactor.expire()
        assert other.told == []

    def test_an_interrupt_leaves_the_others_their_deadlines(
        self, loop: Loop, reactor: Reactor
    ) -> None:
        def interrupt() -> None:
            reactor.drop_deadline(entry)  # like a reply that fails because of it
            raise KeyboardInterrupt

        entry = reactor.add_deadline(5, Operation(5, interrupt))
        other = Operation(6)
        reactor.add_deadline(6, other)
        loop.now = 7
        with pytest.raises(KeyboardInterrupt):
            reactor.expire()
        assert loop.armed == 6
        reactor.expire()
        assert other.told[-1] == "expire"

    def test_a_defect_fails_only_its_own(
        self, loop: Loop, reactor: Reactor, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Operation):
            def expire(self) -> None:
                raise ZeroDivisionError

        reactor.add_deadline(5, Broken(5))
        other = Operation(5)
        reactor.add_deadline(5, other)
        loop.now = 7
        reactor.expire()
        assert other.told[-1] == "expire"
        assert "a deadline was not reported" in caplog.text


class TestOrder:
    def test_the_loop_waits_for_the_earliest(self, loop: Loop, reactor: Reactor) -> None:
        for at, armed in ((5, 5), (7, 5), (3, 3), (4, 3)):
            reactor.add_deadline(at, Operation(at))
            assert loop.armed == armed
        loop.now = 4
        reactor.expire()
        assert loop.armed == 5

    def test_each_at_its_time(self, loop: Loop, reactor: Reactor) -> None:
        chance = random.Random(5)
        operations = [Operation(chance.uniform(0, 100)) for _ in range(500)]
        for operation in operations:
            reactor.add_deadline(chance.uniform(0, operation.due_at), operation)
        for now in range(101):
            loop.now = now
            reactor.expire()
            for operation in operations:
                assert ("expire" in operation.told) is (operation.due_at <= now)
        assert loop.armed == inf


class TestDropping:
    def test_the_last_one_clears_the_heap(self, loop: Loop, reactor: Reactor) -> None:
        """A request does not reset the timer: the previous request's expires once, without
        effect."""
        entries = [reactor.add_deadline(at, Operation(at)) for at in range(1, 50)]
        for entry in entries:
            reactor.drop_deadline(entry)
            reactor.drop_deadline(entry)
        assert reactor._deadlines == []
        assert loop.armed == 1
        loop.now = 1
        reactor.expire()
        assert loop.armed == inf

    def test_the_heap_does_not_grow_with_removed_deadlines(
        self, loop: Loop, reactor: Reactor
    ) -> None:
        kept = Operation(1000)
        reactor.add_deadline(1000, kept)
        most = 0
        for number in range(10_000):
            entry = reactor.add_deadline(500 + number % 100, Operation(500))
            reactor.drop_deadline(entry)
            most = max(most, len(reactor._deadlines))
        assert most <= 66
        loop.now = 1000
        reactor.expire()
        assert kept.told[-1] == "expire"

    def test_many_at_once_in_any_order(self, loop: Loop, reactor: Reactor) -> None:
        chance = random.Random(7)
        operations = [Operation(chance.uniform(0, 100)) for _ in range(1000)]
        entries = [reactor.add_deadline(each.due_at, each) for each in operations]
        left = set(chance.sample(range(1000), 30))
        for number in chance.sample(range(1000), 1000):
            if number not in left:
                reactor.drop_deadline(entries[number])
        assert len(reactor._deadlines) <= 120
        loop.now = 100
        reactor.expire()
        assert {n for n, each in enumerate(operations) if each.told} == left

    def test_removed_ones_at_the_top_are_not_awaited(self, loop: Loop, reactor: Reactor) -> None:
        first = reactor.add_deadline(5, Operation(5))
        reactor.add_deadline(6, Operation(6))
        early = reactor.add_deadline(1, Operation(1))
        reactor.drop_deadline(first)
        reactor.drop_deadline(early)
        loop.now = 1
        reactor.expire()
        assert loop.armed == 6

    def test_the_last_connection_stops_the_reactor(self, loop: Loop, reactor: Reactor) -> None:
        reactor.add_deadline(5, Operation(5, reactor.leave))
        loop.now = 5
        loop.armed = 0
        reactor.expire()
        assert reactor.closed
        assert loop.stopped
        assert loop.armed == 0  # not changed any more


class Timed(Operation):
    """An operation that records its expiry."""

    def expire(self) -> None:
        self.expired_at = anyio.current_time()
        super().expire()


@virtual
async def test_on_the_event_loop() -> None:
    """A deadline that moves, one that is added before it, and one that is dropped."""
    reactor = current_reactor()
    reactor.join()
    began = anyio.current_time()
    operations = [Timed(began + seconds) for seconds in (5, 3, 4, 2)]
    for operation in operations[:2]:
        reactor.add_deadline(operation.due_at, operation)
    operations[0].due_at += 2
    await anyio.sleep(1)
    dropped = reactor.add_deadline(operations[3].due_at, operations[3])
    reactor.add_deadline(operations[2].due_at, operations[2])
    reactor.drop_deadline(dropped)
    await anyio.sleep(20)
    moved, plain, late, never = operations
    assert moved.expired_at - began == pytest.approx(7)
    assert plain.expired_at - began == pytest.approx(3)
    assert late.expired_at - began == pytest.approx(4)
    assert never.told == []
    reactor.leave()
    assert reactor.closed


@virtual
async def test_a_deadline_that_is_already_due() -> None:
    reactor = current_reactor()
    reactor.join()
    overdue = Timed(anyio.current_time() - 1)
    reactor.add_deadline(overdue.due_at, overdue)
    await anyio.sleep(0.01)
    assert overdue.told[-1] == "expire"
    reactor.leave()
