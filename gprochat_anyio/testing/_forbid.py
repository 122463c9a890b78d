"""Switches for the real network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gprochat_anyio.transport._wiring import NetworkForbiddenError, switches

__all__ = ["NetworkForbiddenError", "allow_network", "forbid_network"]


@contextmanager
def forbid_network() -> Iterator[None]:
    """For the time of the block, no connection of this library leaves the machine.

    One that would raises `NetworkForbiddenError` at once, before any name is looked up, and it is
    not tried again. Scripted sites and loopback (`live_site`, the embedded site) stay allowed. It
    holds for the whole process, all threads and event loops. Connections that a transport of
    httpx's makes are covered as far as that is `AsyncHTTPTransport` itself. For a whole test
    run: `pytest --gprochat-forbid-network`, or the ini option `gprochat_forbid_network`.
    """
    with _switched(allowed=False):
        yield


@contextmanager
def allow_network() -> Iterator[None]:
    """For the time of the block, the network may be used although it was forbidden."""
    with _switched(allowed=True):
        yield


@contextmanager
def _switched(*, allowed: bool) -> Iterator[None]:
    switches.append(allowed)
    try:
        yield
    finally:
        switches.pop()
