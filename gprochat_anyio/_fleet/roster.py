"""The endpoints of a fleet, and the choice of one for a request."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from math import inf

from .member import Member


class Roster:
    """The endpoints of a fleet."""

    __slots__ = ("_random", "members")

    def __init__(self, members: Sequence[Member], random: random.Random) -> None:
        self.members = tuple(members)
        self._random = random

    def choose(self, now: float) -> Member | None:
        """Return the endpoint for a new prompt: the less loaded one of two at random.

        :return: None if all that are not ejected are paused
        """
        members, random = self.members, self._random.random
        count = len(members)
        first = int(random() * count)
        second = (first + 1 + int(random() * (count - 1))) % count
        one, other = members[first], members[second]
        if one.available_at <= now and other.available_at <= now:
            return one if one.load <= other.load else other
        return self.choose_from(self.candidates(now, ()))

    def candidates(self, now: float, tried: Collection[Member]) -> list[Member]:
        """Return the endpoints that may be asked and were not tried.

        If every endpoint is ejected, ejection is ignored.
        """
        found = [member for member in self.members if member.available_at <= now]
        if not found and self._is_ejected:
            found = [member for member in self.members if not member.is_paused(now)]
        return [member for member in found if member not in tried]

    def choose_from(self, members: list[Member]) -> Member | None:
        """Return the less loaded one of two at random; None if there is none."""
        if len(members) < 2:
            return members[0] if members else None
        one, other = self._random.sample(members, 2)
        return one if one.load <= other.load else other

    def resumes(self, now: float) -> float:
        """Return when the next endpoint may be asked; infinite if that is no matter of time."""
        if self._is_ejected:
            times = (member.paused_until for member in self.members)
        else:
            times = (member.available_at for member in self.members)
        return min((time for time in times if time > now), default=inf)

    @property
    def _is_ejected(self) -> bool:
        return all(member.is_ejected for member in self.members)
