"""Serving a site until SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio

from ._exit_codes import say
from ._output import Output, PipeClosedError

if TYPE_CHECKING:
    from gprochat_anyio import Client
    from gprochat_anyio.site import Model


async def serve_site(
    make_model: Callable[[], Model | Client],
    *,
    host: str,
    port: int,
    secret_key: str,
    passwords: tuple[str, ...],
    hosts: tuple[str, ...],
    max_at_once: int | None,
    body_limit: int,
    no_page: bool,
    access_log: bool,
    ssl_context: ssl.SSLContext | None,
    grace: float,
) -> None:
    """Serve a site, and print its URL once it accepts connections. SIGTERM ends it with grace.

    :param make_model: Returns the model or a client. A client is closed at the end.
    :param grace: Time for open replies after SIGTERM, in seconds.
    :raises OSError: If the address cannot be used.
    :raises ValueError: If a setting is invalid. The message names it.
    """
    from gprochat_anyio import Client, site  # noqa: PLC0415 - 100 ms

    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        model = make_model()
        if isinstance(model, Client):
            await stack.enter_async_context(model)
        tg = await stack.enter_async_context(anyio.create_task_group())
        app = site.create_app(
            model,
            secret_key=secret_key,
            passwords=passwords,
            hosts=hosts,
            max_at_once=max_at_once,
            body_limit=body_limit,
            page=not no_page,
        )
        if access_log:
            _log_to_stderr("gprochat_anyio.site.access")
        ending = anyio.Event()
        watching: anyio.CancelScope = await tg.start(_at_sigterm, ending.set)

        async def run(*, task_status: anyio.abc.TaskStatus[str]) -> None:
            try:
                await site.serve(
                    app_or_model=app,
                    host=host,
                    port=port,
                    ssl_context=ssl_context,
                    until=ending,
                    grace=grace,
                    task_status=task_status,
                )
            finally:
                watching.cancel()

        try:
            address = await tg.start(run)
        except (OSError, ValueError) as error:
            failure = error  # bare; the task group would wrap it
        else:
            try:
                Output().write(f"{address}\n")
            except (OSError, PipeClosedError):  # nobody needs stdout to use the site
                say(f"serving at {address}")
            say("Ctrl-C stops it")
    if failure is not None:
        raise failure


async def _at_sigterm(
    act: Callable[[], None], *, task_status: anyio.abc.TaskStatus[anyio.CancelScope]
) -> None:
    """Call `act` at the first SIGTERM. A second one ends the process."""
    with anyio.CancelScope() as scope:
        if os.name == "nt":  # pragma: no cover - has no such signal
            task_status.started(scope)
            return
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started(scope)
            await anext(aiter(signals))
        act()


def _log_to_stderr(name: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
