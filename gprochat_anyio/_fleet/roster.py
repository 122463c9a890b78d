"""The endpoints of a fleet, and the choice of one for each request."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from math import inf

from .member import Member


class Roster:
    """The endpoints of a fleet."""

    __slots__ = ("_pairs", "_random", "is_single", "members")

    def __init__(self, members: Sequence[Member], random: random.Random) -> None:
        self.members: tuple[Member, ...] = tuple(members)
        self._pairs = len(self.members) * (len(self.members) - 1)
        self.is_single: bool = len(self.members) == 1
        """True for a fleet of one client, which behaves like that client."""
        self._random = random

    def choose(self, now: float) -> Member | None:
        """Return the endpoint for a new prompt: the less loaded of two random ones.

        :return: `None` if all endpoints that are not ejected are paused.
        """
        members = self.members
        if self.is_single:
            return members[0]  # the client itself waits
        others = len(members) - 1
        first, second = divmod(int(self._random.random() * self._pairs), others)
        one, other = members[first], members[second if second < first else second + 1]
        if one.available_at <= now and other.available_at <= now:
            return one if one.load <= other.load else other
        return self.choose_from(self.candidates(now, ()))

    def candidates(self, now: float, tried: Collection[Member]) -> list[Member]:
        """Return the endpoints that may be used and have not been tried.

        If every endpoint is ejected, ejection is ignored.
        """
        found = [member for member in self.members if member.available_at <= now]
        if not found and self._is_ejected:
            found = [member for member in self.members if not member.is_paused(now)]
        return [member for member in found if member not in tried]

    def choose_from(self, members: list[Member]) -> Member | None:
        """Return the less loaded of two random endpoints, or `None` if there are none."""
        if len(members) < 2:
            return members[0] if members else None
        one, other = self._random.sample(members, 2)
        return one if one.load <= other.load else other

    def resumes(self, now: float) -> float:
        """Return the time from which an endpoint may be used; infinite if it is unknown."""
        if self._is_ejected:
            times = (member.paused_until for member in self.members)
        else:
            times = (member.available_at for member in self.members)
        return min((time for time in times if time > now), default=inf)

    @property
    def _is_ejected(self) -> bool:
        return all(member.is_ejected for member in self.members)
