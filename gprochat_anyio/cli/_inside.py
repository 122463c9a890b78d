"""Clients of the commands, for a site, a fleet, a model's API or a model in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ._exit_codes import say
from ._site import Site

if TYPE_CHECKING:
    from gprochat_anyio import Client, Fleet


@asynccontextmanager
async def opened_client(
    site: Site, *, tell: Callable[[str], None] = say, **settings: Any
) -> AsyncIterator[Client | Fleet]:
    """Open a client or a fleet for the duration of the block.

    :param tell: Called with a message if nothing is named, and the embedded site replies.
    :param settings: Further settings of `Client`.
    :raises ValueError: If a setting is invalid or missing.
    :raises ImportError: If an extra is missing.
    """
    async with site.client(**settings) as client:
        if site.embedded:
            tell("no --url, --site or --model: the embedded site replies, offline")
        yield client
