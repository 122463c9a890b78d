"""The lease book: leases follow the demand, expire, and never exceed the limits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprochat_anyio._request.leased_limiter import Demand
from gprochat_anyio.batch._lease_book import (
    EXPIRES_AFTER,
    LEASED_FOR,
    LeaseBook,
    LeasedLimits,
    divide,
)

MOST = 16
RATE = 100.0


class Holder:
    """Shard that uses its lease, up to its demand."""

    def __init__(self, name: int, *, wants: int = MOST, per_second: float = 10 * RATE) -> None:
        self.name = name
        self.wants = wants
        self.per_second = per_second
        self.held: LeasedLimits | None = None
        self.running = 0
        self._started = 0.0
        self._renewed = 0.0

    def renew(self, book: LeaseBook, now: float, *, ended: int | None = None) -> None:
        """Renew the lease. Requests start within the previous one until the new one arrives.

        :param ended: The number of requests that have ended since. `None` for all.
        """
        at_once, rate = self.held or LeasedLimits()
        rate = self.per_second if rate is None else rate
        is_hungry = self.per_second > rate
        if ended is None:
            self.running = min(self.wants, max(at_once - is_hungry, 0))
        else:
            self.running -= min(ended, self.running)
        self._started += min(rate, self.per_second) * (now - self._renewed)
        self._renewed = now
        waiting = max(self.wants - self.running, 0)
        held = book.renew(
            self.name, Demand(self.running, waiting, int(self._started)), self.held, now
        )
        if ended is not None:
            self.running = max(self.running, min(self.wants, at_once))
        self.held = held

    @property
    def limits(self) -> LeasedLimits:
        assert self.held is not None
        return self.held


def rounds(book: LeaseBook, holders: list[Holder], *, begin: float, count: int = 5) -> float:
    """Renew all leases once a second. Return the time of the last round."""
    for second in range(count):
        for offset, holder in enumerate(holders):
            holder.renew(book, begin + second + offset / 1000)
    return begin + count - 1


@given(
    st.integers(0, 1000),
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.booleans(),
)
def test_division(total: int, wants: list[int], whole: bool) -> None:
    shares = divide(total, wants, whole=whole)
    assert sum(shares) == pytest.approx(min(total, sum(wants)))
    for share, want in zip(shares, wants, strict=True):
        assert 0 <= share <= want
        if share < want:  # no share exceeds one that is below its maximum, except by a remainder
            assert max(shares) <= share + (1 if whole else 1e-9)
        assert not whole or share == int(share)


def test_hungry_holders_share_equally() -> None:
    book = LeaseBook(40, RATE, most=MOST)
    holders = [Holder(name) for name in range(4)]
    rounds(book, holders, begin=0.0)
    assert [holder.limits.at_once for holder in holders] == [10] * 4
    assert [holder.limits.per_second for holder in holders] == [pytest.approx(RATE / 4)] * 4


def test_without_limits_each_holder_has_its_maximum() -> None:
    book = LeaseBook(None, None, most=MOST)
    holders = [Holder(name) for name in range(3)]
    rounds(book, holders, begin=0.0)
    assert [holder.limits for holder in holders] == [LeasedLimits(MOST, None)] * 3


def test_a_limit_below_the_number_of_holders_is_used_up() -> None:
    book = LeaseBook(3, None, most=MOST)
    holders = [Holder(name) for name in range(5)]
    rounds(book, holders, begin=0.0)
    assert sum(holder.limits.at_once for holder in holders) == 3


def test_unused_rate_goes_to_other_holders() -> None:
    book = LeaseBook(None, RATE, most=MOST)
    slow, fast = Holder(0, per_second=10.0), Holder(1)
    rounds(book, [slow, fast], begin=0.0, count=10)
    assert 10 < (slow.limits.per_second or 0) < 40
    assert (fast.limits.per_second or 0) > 60
    slow.per_second = fast.per_second
    rounds(book, [slow, fast], begin=10.0, count=10)
    assert slow.limits.per_second == fast.limits.per_second == pytest.approx(RATE / 2)


@settings(deadline=None)
@given(st.data())
def test_leases_never_exceed_the_limits(data: st.DataObject) -> None:
    at_once, now = data.draw(st.integers(1, 50)), 0.0
    book = LeaseBook(at_once, RATE, most=MOST)
    holders: dict[int, Holder] = {}
    renewed: dict[int, float] = {}
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.floats(0.0, 3.0))
        name = data.draw(st.integers(0, 5))
        if name in holders and data.draw(st.integers(0, 4)) == 0:
            book.release(name)
            del holders[name], renewed[name]
            continue
        if now - renewed.get(name, now) > EXPIRES_AFTER:
            del holders[name]  # its process was lost, and runs again
        holder = holders.setdefault(name, Holder(name))
        holder.wants = data.draw(st.integers(0, MOST))
        holder.per_second = data.draw(st.floats(0.0, 2 * RATE))
        holder.renew(book, now, ended=data.draw(st.integers(0, MOST)))
        renewed[name] = now
        live = [holders[one] for one in holders if now - renewed[one] <= EXPIRES_AFTER]
        assert sum(one.limits.at_once for one in live) <= at_once
        assert sum(one.running for one in live) <= at_once
        assert sum(one.limits.per_second or 0 for one in live) <= RATE * 1.000001


def test_running_requests_count_after_a_smaller_lease() -> None:
    book = LeaseBook(10, None, most=MOST)
    first = book.renew(0, Demand(0, 0, 0), None, 0.0)
    assert first.at_once == 10
    assert book.renew(1, Demand(0, 16, 0), None, 0.5).at_once == 0
    first = book.renew(0, Demand(10, 6, 10), first, 1.0)
    assert first.at_once == 5
    assert book.renew(1, Demand(0, 16, 0), LeasedLimits(0, None), 1.5).at_once == 0, "10 still run"
    book.renew(0, Demand(6, 6, 10), first, 2.0)
    assert book.renew(1, Demand(0, 16, 0), LeasedLimits(0, None), 2.5).at_once == 4


def test_requests_that_start_before_a_smaller_lease_arrives_count() -> None:
    book = LeaseBook(5, None, most=4)
    first, second = Holder(0, wants=4), Holder(1, wants=4)
    first.renew(book, 0.0, ended=0)
    second.renew(book, 0.1, ended=0)
    assert (first.limits.at_once, second.limits.at_once) == (4, 1)
    first.renew(book, 1.0, ended=0)  # reports no running request, but 4 start before the new lease
    assert first.running == 4
    second.renew(book, 1.1, ended=0)
    assert second.limits.at_once == 1


def test_a_lost_lease_expires() -> None:
    book = LeaseBook(8, RATE, most=MOST)
    lost, other = Holder(0), Holder(1)
    rounds(book, [lost, other], begin=0.0)
    other.renew(book, 4.0 + EXPIRES_AFTER - 1)
    assert other.limits.at_once == 4
    for now in range(4):
        other.renew(book, 4.1 + EXPIRES_AFTER + now)
    assert other.limits.at_once == 8
    assert other.limits.per_second == pytest.approx(RATE)


def test_a_shard_that_runs_again_replaces_its_lost_lease() -> None:
    book = LeaseBook(8, RATE, most=MOST)
    lost, other = Holder(0), Holder(1)
    now = rounds(book, [lost, other], begin=0.0)
    again = Holder(0)
    again.renew(book, now + 1)
    assert again.limits.at_once == 4


def test_a_new_book_learns_before_it_leases() -> None:
    known, new = Holder(0), Holder(1)
    known.held = LeasedLimits(8, RATE)
    book = LeaseBook(8, RATE, most=MOST, learns_until=LEASED_FOR)
    new.renew(book, 0.0)
    assert new.limits == LeasedLimits(), "the others are not known yet"
    known.renew(book, 0.5)
    assert known.limits == LeasedLimits(8, RATE)
    rounds(book, [known, new], begin=LEASED_FOR)
    assert known.limits.at_once == new.limits.at_once == 4
