"""A client of who is asked; before it the site itself, where that is inside this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Final

import anyio

from ._exits import say
from ._model import OFFLINE, opened
from ._sites import Site

if TYPE_CHECKING:
    from gprochat_anyio import Client, Fleet
    from gprochat_anyio.site import Model

_PATIENCE: Final = {"first_chunk": 300.0, "idle": 120.0, "total": inf}
"""As models have it themselves: one may have to be loaded first, or to think."""


@asynccontextmanager
async def opened_client(
    site: Site, *, tell: Callable[[str], None] = say, **settings: Any
) -> AsyncIterator[Client | Fleet]:
    """A client or a fleet, for the time of the block. A site inside this process is served as
    long, for this client alone: others on this machine could use the model, too.

    :param tell: is told that the embedded site answers, if it does
    :param settings: of `Client`, besides
    :raises ValueError: for a setting that can not be, or is missing
    :raises ImportError: without an extra that it needs
    :raises OSError: if it can not be served
    """
    if not site.inside:
        async with site.client(**settings) as client:
            yield client
        return
    kind, _, name = (site.model or OFFLINE).partition("/")
    key = token_urlsafe()
    async with (
        opened(kind, name or None, site.url, site.proxy) as model,
        _served(model, key) as url,
    ):
        if site.model is None:
            tell("no --url, --site or GPROCHAT_URL: the embedded site answers, offline")
        site = site._replace(
            url=url,
            secret_key=key,
            password=None,
            proxy=None,
            timeouts=_PATIENCE | dict(site.timeouts),
        )
        async with site.client(trust_env=False, **settings) as client:
            yield client


@asynccontextmanager
async def _served(model: Model, key: str) -> AsyncIterator[str]:
    from gprochat_anyio.site import serve  # noqa: PLC0415 - 100 ms

    failure: Exception | None = None
    async with anyio.create_task_group() as tg:
        try:
            yield await tg.start(partial(serve, app_or_model=model, secret_key=key))
        except Exception as error:  # noqa: BLE001 - bare; the task group would wrap it
            failure = error
        tg.cancel_scope.cancel()
    if failure is not None:
        raise failure
