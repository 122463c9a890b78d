"""A client of who is asked: a site, a fleet, a model's API, or a model in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ._exits import say
from ._site import Site

if TYPE_CHECKING:
    from gprochat_anyio import Client, Fleet


@asynccontextmanager
async def opened_client(
    site: Site, *, tell: Callable[[str], None] = say, **settings: Any
) -> AsyncIterator[Client | Fleet]:
    """A client or a fleet, for the time of the block.

    :param tell: is told that a model in this process answers, if nothing else was asked for
    :param settings: of `Client`, besides
    :raises ValueError: For a setting that is invalid, or missing.
    :raises ImportError: Without an extra that it needs.
    """
    async with site.client(**settings) as client:
        if site.embedded:
            tell("no --url, --site or GPROCHAT_URL: the embedded site answers, offline")
        yield client
