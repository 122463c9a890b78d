"""The measured clients, behind one interface."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._peer import Peer

_MANY, _FEW = 10_000, 300


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of a peer: its class, and the workloads and loops in which it takes part.

    :param path: The module and the name of its class.
    :param needs: A module that must be installed.
    :param workloads: The letters of its kinds of workload.
    :param most_at_once: Maximum number of concurrent replies.
    :param over_events: Its class for replies of OpenAI's API, the workloads S. `None` if it does
        not take part in them.
    """

    path: str
    needs: str
    loops: tuple[str, ...]
    workloads: str = "ABCMDE"
    most_at_once: int = _MANY
    in_quick: bool = True
    over_events: str | None = None

    def most_in(self, kind: str) -> int:
        """Return the maximum number of replies in a workload of that kind."""
        if kind == "M" and self.is_slow:
            return _FEW
        return self.most_at_once if kind in "CME" else sys.maxsize

    @property
    def is_slow(self) -> bool:
        """True if many concurrent replies take it too long."""
        return self.most_at_once < _MANY


_EVERY = ("asyncio", "uvloop", "trio")
_COLLAPSES = 1000
"""Maximum for httpx: for each request, the pool of httpcore 1.0.9 examines all of them."""

PEERS = {
    "ours-ask": Entry(
        "ours:Ask", "gprochat_anyio", _EVERY, "ABCME", over_events="ours:AskOverEvents"
    ),
    "ours-stream": Entry(
        "ours:Stream", "gprochat_anyio", _EVERY, over_events="ours:StreamOverEvents"
    ),
    "ours-stream_to": Entry("ours:StreamTo", "gprochat_anyio", _EVERY, "B"),
    "ours-fan_out": Entry("ours:FanOut", "gprochat_anyio", _EVERY, "CME"),
    "channel": Entry("channel:Channel", "anyio", _EVERY, "B", in_quick=False),
    "aiohttp": Entry(
        "with_aiohttp:Aiohttp",
        "aiohttp",
        ("asyncio", "uvloop"),
        over_events="with_aiohttp:AiohttpOverEvents",
    ),
    "aiohttp-lines": Entry(
        "with_aiohttp:AiohttpLines",
        "aiohttp",
        ("asyncio",),
        workloads="",
        in_quick=False,
        over_events="with_aiohttp:AiohttpLines",
    ),
    "httpx": Entry("with_httpx:Httpx", "httpx", _EVERY, most_at_once=_COLLAPSES),
    "httpx-raw": Entry("with_httpx:HttpxRaw", "httpx", ("asyncio",), "A", in_quick=False),
    "httpx2": Entry("with_httpx:Httpx2", "httpx2", _EVERY, most_at_once=_COLLAPSES, in_quick=False),
    "openai": Entry(
        "with_openai:OpenAI",
        "openai",
        ("asyncio",),
        most_at_once=500,
        over_events="with_openai:OpenAI",
    ),
    "floor": Entry("floor:Floor", "httptools", ("uvloop",)),
    "raw socket": Entry("raw_socket:RawSocket", "socket", ("blocking",), "D"),
}


def load(name: str, *, over_events: bool) -> type[Peer]:
    """Return the peer's class. This imports its library, so only the measuring process calls it.

    :param over_events: Whether to return the class for replies of OpenAI's API.
    :raises ValueError: If the peer has no such class.
    """
    path = PEERS[name].over_events if over_events else PEERS[name].path
    if path is None:
        raise ValueError(f"{name} does not take part in the workloads of OpenAI's API")
    module, _, attribute = path.partition(":")
    peer: type[Peer] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return peer


def is_missing(name: str) -> bool:
    """Return True if the peer's library is not installed."""
    return find_spec(PEERS[name].needs) is None
