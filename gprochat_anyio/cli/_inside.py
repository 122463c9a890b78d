"""A client of who is asked: a site, a fleet, a model's API, or a model in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ._exits import say
from ._model import OFFLINE, PATIENCE, api_client, sample_model
from ._sites import Site

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
    async with _client_of(site, **settings) as client:
        if site.inside and site.model is None:
            tell("no --url, --site or GPROCHAT_URL: the embedded site answers, offline")
        yield client


def _client_of(site: Site, **settings: Any) -> Client | Fleet:
    if not site.inside:
        return site.client(**settings)
    from gprochat_anyio import Client, Timeouts  # noqa: PLC0415 - not for `--help`

    kind, _, name = (site.model or OFFLINE).partition("/")
    timeouts = Timeouts(**PATIENCE | dict(site.timeouts))
    model = sample_model(kind, name, site.url, site.proxy)
    if model is not None:
        return Client.of(model, timeouts=timeouts)
    return api_client(kind, name or None, site.url, proxy=site.proxy, timeouts=timeouts, **settings)
