"""Where connections lead instead of into the network: for tests, set by `gprochat_anyio.testing`.

Both are the process's own, so that they hold in every thread and event loop. Empty, as they are
outside tests, they cost a connection nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Protocol


class MemoryStream(Protocol):
    """The client's end of a connection in memory."""

    async def receive(self, max_bytes: int = ...) -> bytes:
        """Wait for data; raises as AnyIO's byte streams do."""
        ...

    async def send(self, item: bytes) -> None:
        """Send data; raises as AnyIO's byte streams do."""
        ...

    def close(self) -> None:
        """Close at once, in any task or callback of the event loop."""
        ...


in_memory: dict[str, Callable[[], Awaitable[MemoryStream]]] = {}
"""What connects to a site in memory, by the site's origin (`https://name`).
There is neither a proxy nor TLS on the way."""

switches: list[bool] = []
"""Whether the real network may be used: the last one counts, none at all allows it."""


class NetworkForbiddenError(RuntimeError):
    """A test would have used the network. No `GPROChatError`, so that nothing that handles those
    hides it, and nothing is tried again."""


def check_allowed(host: str) -> None:
    """Make sure that a real connection may be made. Loopback always may.

    :raises NetworkForbiddenError: if not
    """
    if not switches or switches[-1] or is_loopback(host):
        return
    raise NetworkForbiddenError(
        f"a connection to {host} was about to be made while gprochat_anyio.testing forbids the "
        "network. Script a site instead: `async with scripted_site('Hello') as site`, and give the "
        "client site.url; or allow this one with `with allow_network():`"
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or its address."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
