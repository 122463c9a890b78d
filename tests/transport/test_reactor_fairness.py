"""The turns of a reactor: the amount of data read in each, and the choice of connections."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.reactors import running_reactor

from gprochat_anyio.transport import _reactor
from gprochat_anyio.transport._reactor import Reactor, current_reactor

from .watching import Watched, watched


class TestFairness:
    async def test_a_flood_gets_a_few_milliseconds_a_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of 200 connections, none is read again before all others were read."""
        time, reads, now = 0.0, list[int](), 0.0

        def monotonic() -> float:
            return time

        monkeypatch.setattr(_reactor, "monotonic", monotonic)
        flooded = [Watched() for _ in range(200)]
        reactor = current_reactor()

        def read(number: int) -> Any:
            def recv(_: int) -> bytes:
                nonlocal time
                time += 0.0002  # to receive, parse, decode and deliver 64 KiB
                reads.append(number)
                return b"x"

            return recv

        for number, each in enumerate(flooded):
            each.connection._recv = read(number)
            each.other.send(b"more than is read")
        longest = 0.0
        for turn in range(1, 100):
            now = time
            reactor.poll()
            longest = max(longest, time - now)
            if turn in (20, 40):
                assert len(set(reads)) == 200 or len(reads) < 200
        assert longest <= 0.0023
        assert len(reads) > 400
        for start in range(0, len(reads) - 200, 200):
            assert len(set(reads[start : start + 200])) == 200
        for each in flooded:
            each.close()

    async def test_only_one_connection_needs_no_selecting(self) -> None:
        with watched() as one:
            one.other.send(b"data")
            reactor = one.connection.reactor
            real, reactor._selector = reactor._selector, None
            try:
                reactor.poll()
            finally:
                reactor._selector = real
            assert one.listening.told == [b"data"]

    async def test_a_connection_closed_after_its_event_was_fetched(self) -> None:
        """A receiver closes the connections whose events are next."""
        all_of_them = [Watched() for _ in range(5)]
        told: list[Watched] = []

        def close_others(one: Watched) -> Any:
            def feed(_: bytes) -> None:
                told.append(one)
                for each in all_of_them:
                    if each is not one:
                        each.close()

            return feed

        for each in all_of_them:
            each.listening.feed = close_others(each)  # type: ignore[method-assign]
            each.other.send(b"data")
        with anyio.fail_after(5):
            while not told:
                await checkpoint()
        for _ in range(5):
            await checkpoint()
        (one,) = told
        one.close()
        assert running_reactor() is None

    async def test_the_last_connection_is_closed_by_its_receiver(self) -> None:
        both = [Watched() for _ in range(2)]
        closed: list[bytes] = []

        def close(data: bytes) -> None:
            closed.append(data)
            for each in both:
                each.close()

        for each in both:
            each.listening.feed = close  # type: ignore[method-assign]
            each.other.send(b"data")
        while not closed:
            await checkpoint()
        for _ in range(5):
            await checkpoint()
        assert closed == [b"data"]
        assert running_reactor() is None

    async def test_a_turn_that_ends_with_the_rest_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fetched events do not keep closed connections alive."""
        time = iter(range(1000))
        monkeypatch.setattr(_reactor, "monotonic", lambda: next(time))
        three = [Watched() for _ in range(3)]
        reactor = current_reactor()
        for each in three:
            each.other.send(b"data")
        reactor.poll()
        assert sum(bool(each.listening.told) for each in three) == 1
        assert len(reactor._ready) == 2
        for each in three:
            each.close()
        assert reactor.closed
        assert reactor._ready == []


@pytest.mark.usefixtures("reader_tasks")
class TestPausing:
    async def test_a_paused_connection_is_in_no_selector(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A selector always reports a hang-up: the loop would spin."""
        polls = 0
        for name in ("poll", "_dispatch"):
            real = getattr(Reactor, name)

            def counted(*args: Any, real: Any = real) -> None:
                nonlocal polls
                polls += 1
                real(*args)

            monkeypatch.setattr(Reactor, name, counted)
        with watched() as one, watched() as other:
            other.other.send(b"data")
            await other.listening.until(b"data")
            one.connection.pause()
            await checkpoint()
            before = polls
            one.other.close()
            for _ in range(20):
                await checkpoint()
            assert polls == before
            one.connection.resume()
            await one.listening.until_over()
