"""Replacements for network connections in tests, set by `gprochat_anyio.testing`.

They are global, so that they apply in every thread and event loop of the process. Outside tests
they are empty.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Protocol


class MemoryStream(Protocol):
    """The client's end of an in-memory connection."""

    async def receive(self, max_bytes: int = ...) -> bytes:
        """Wait for data. Raise as AnyIO's byte streams do."""
        ...

    async def send(self, item: bytes) -> None:
        """Send data. Raise as AnyIO's byte streams do."""
        ...

    def close(self) -> None:
        """Close immediately. Safe in any task or callback of the event loop."""
        ...


in_memory: dict[str, Callable[[], Awaitable[MemoryStream]]] = {}
"""Functions that connect to in-memory sites, by the site's origin (`https://name`). Neither proxies
nor TLS apply."""

switches: list[bool] = []
"""The nested permissions to use the real network. The last one applies; without any, it is
allowed."""


class NetworkForbiddenError(RuntimeError):
    """A test tried to use the network.

    It is not a `GPROChatError`, so that no handler of those hides it, and nothing is retried.
    """


def check_allowed(host: str) -> None:
    """Check that a network connection is allowed. Loopback always is.

    :raises NetworkForbiddenError: If it is not.
    """
    if not switches or switches[-1] or is_loopback(host):
        return
    raise NetworkForbiddenError(
        f"gprochat_anyio.testing forbids the network, and a client is connecting to {host}. Script "
        "a site instead (`async with scripted_site('Hello') as site`) and pass site.url to the "
        "client, or allow this connection with `with allow_network():`"
    )


def is_loopback(host: str) -> bool:
    """Return True if a host's name or address is a loopback one."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
