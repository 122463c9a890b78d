"""Context managers that forbid and allow network connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gprochat_anyio.transport._wiring import NetworkForbiddenError, switches

__all__ = ["NetworkForbiddenError", "allow_network", "forbid_network"]


@contextmanager
def forbid_network() -> Iterator[None]:
    """Forbid this library's network connections within the block.

    A connection raises `NetworkForbiddenError` immediately, before name resolution, and is not
    retried. Scripted sites and loopback (`live_site`, the embedded site) are allowed. The block
    applies to the whole process, in all threads and event loops. It covers httpx's
    `AsyncHTTPTransport`, but no other transport of the caller. For a complete test run, use
    `pytest --gprochat-forbid-network` or the ini option `gprochat_forbid_network`.
    """
    with _switched(allowed=False):
        yield


@contextmanager
def allow_network() -> Iterator[None]:
    """Allow network connections within the block, inside of `forbid_network`."""
    with _switched(allowed=True):
        yield


@contextmanager
def _switched(*, allowed: bool) -> Iterator[None]:
    switches.append(allowed)
    try:
        yield
    finally:
        switches.pop()
