"""Division of limits among processes.

Each holder of a lease renews it every `RENEW_EVERY` seconds and reports its demand. The book
divides the limits so that the smallest share is as large as possible. The leases never exceed the
limits: a holder gets more only after others have renewed for less, or lost their leases.

The book has no clock and never waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from gprochat_anyio._request.leased_limiter import Demand

RENEW_EVERY: Final = 1.0
"""Time between two renewals of a lease, in seconds."""

LEASED_FOR: Final = 5.0
"""Time without a renewal after which a holder starts no more requests, in seconds."""

EXPIRES_AFTER: Final = 10.0
"""Time without a renewal after which other holders get a holder's share, in seconds."""

_DIVIDE_EVERY: Final = 0.1
"""Time between two divisions while the holders are the same, in seconds."""

_HEADROOM: Final = 2.0
"""Rate that a holder wants if it does not use up its share, relative to the rate that it used."""


class LeasedLimits(NamedTuple):
    """Limits of one holder."""

    at_once: int = 0
    """Maximum number of concurrent requests."""
    per_second: float | None = 0.0
    """Maximum number of starts per second. `None` for no limit."""


@dataclass(slots=True, eq=False)
class _Holder:
    limits: LeasedLimits
    held: LeasedLimits
    demand: Demand
    renewed: float
    wants_at_once: float
    wants_per_second: float = inf
    fair_at_once: int = 0
    fair_per_second: float = 0.0

    @property
    def occupied(self) -> int:
        # until the new limits reach the holder, it starts requests within the previous ones
        return max(self.limits.at_once, self.held.at_once, self.demand.running)


class LeaseBook:
    """Book of the leases of all holders.

    :param max_at_once: Maximum number of concurrent requests of all holders. `None` for no limit.
    :param max_per_second: Maximum number of starts per second of all holders. `None` for no limit.
    :param most: Maximum number of concurrent requests of one holder.
    :param learns_until: Time until which holders keep their limits, because holders of an earlier
        book's leases may not have renewed yet.
    """

    def __init__(
        self,
        max_at_once: int | None,
        max_per_second: float | None,
        *,
        most: int,
        learns_until: float = -inf,
    ) -> None:
        self._max_at_once = max_at_once
        self._max_per_second = max_per_second
        self._most = most
        self._learns_until = learns_until
        self._holders: dict[int, _Holder] = {}
        self._divide_at = -inf

    def renew(
        self, name: int, demand: Demand, held: LeasedLimits | None, now: float
    ) -> LeasedLimits:
        """Return a holder's new limits.

        :param held: The holder's current limits. `None` before its first lease.
        """
        for other in [*self._holders]:
            if now - self._holders[other].renewed > EXPIRES_AFTER:
                self.release(other)
        holder = self._holders.get(name)
        if holder is None or held is None:
            holder = _Holder(
                held or LeasedLimits(), held or LeasedLimits(), demand, now, self._most
            )
            self._holders[name] = holder
            self._divide_at = -inf
        else:
            self._update(holder, demand, held, now)
        if now >= self._learns_until:
            if now >= self._divide_at:
                self._divide(now)
            holder.limits = self._share_of(holder)
        return holder.limits

    def release(self, name: int) -> None:
        """Take a lease back."""
        self._holders.pop(name, None)
        self._divide_at = -inf

    def _update(self, holder: _Holder, demand: Demand, held: LeasedLimits, now: float) -> None:
        holder.wants_at_once = min(max(demand.running + demand.waiting, 1), self._most)
        if demand.waiting and demand.running < holder.limits.at_once:
            holder.wants_per_second = inf  # only the rate makes its requests wait
        elif self._max_per_second is not None and now > holder.renewed:
            used = (demand.started - holder.demand.started) / (now - holder.renewed)
            least = self._max_per_second / (10 * len(self._holders))  # for a holder that was idle
            holder.wants_per_second = _HEADROOM * used + least
        holder.demand, holder.held, holder.renewed = demand, held, now

    def _divide(self, now: float) -> None:
        holders = self._holders.values()
        if self._max_at_once is not None:
            wants = [one.wants_at_once for one in holders]
            for one, share in zip(
                holders, divide(self._max_at_once, wants, whole=True), strict=True
            ):
                one.fair_at_once = int(share)
        if self._max_per_second is not None:
            wants = [one.wants_per_second for one in holders]
            for one, share in zip(holders, divide(self._max_per_second, wants), strict=True):
                one.fair_per_second = share
        self._divide_at = now + _DIVIDE_EVERY

    def _share_of(self, holder: _Holder) -> LeasedLimits:
        others = [one for one in self._holders.values() if one is not holder]
        at_once, per_second = self._most, None
        if self._max_at_once is not None:
            free = self._max_at_once - sum(one.occupied for one in others)
            at_once = max(min(holder.fair_at_once, free), 0)
        if self._max_per_second is not None:
            leased = sum(one.limits.per_second or 0.0 for one in others)
            per_second = max(min(holder.fair_per_second, self._max_per_second - leased), 0.0)
        return LeasedLimits(at_once, per_second)


def divide(total: float, wants: Sequence[float], *, whole: bool = False) -> list[float]:
    """Divide a total so that the smallest share is as large as possible.

    :param wants: The maximum of each share.
    :param whole: Whether shares must be whole numbers.
    """
    shares = [0.0] * len(wants)
    left, count = total, len(wants)
    for index in sorted(range(count), key=wants.__getitem__):
        equal = left // count if whole else left / count
        shares[index] = min(wants[index], equal)
        left -= shares[index]
        count -= 1
    return shares
