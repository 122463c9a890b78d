"""`gprochat serve`: the embedded site, for others to ask."""

from __future__ import annotations

import logging
import os
import signal
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import click

from ._config import read_config
from ._exits import FAILED, USAGE, say
from ._model import BEHIND_A_SITE, OFFLINE, api_client, sample_model
from ._options import model_name_option, model_option
from ._sites import configured_model

if TYPE_CHECKING:
    from gprochat_anyio import Client, Retry
    from gprochat_anyio.site import Model

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(
    epilog="Ctrl-C ends it at once, and cuts open replies off. Keys: GEMINI_API_KEY,"
    " OPENAI_API_KEY, GPROCHAT_UPSTREAM_SECRET_KEY, GPROCHAT_UPSTREAM_PASSWORD."
)
@click.option("--host", default="127.0.0.1", help="Another than 127.0.0.1 needs a password.")
@click.option(
    "--port",
    metavar="NUMBER",
    type=click.IntRange(0, 65535),
    default=8000,
    help="8000; 0: a free one.",
)
@click.option(
    "--secret-key",
    metavar="KEY",
    envvar="GPROCHAT_SECRET_KEY",
    default="",
    help="Of requests; or set GPROCHAT_SECRET_KEY.",
)
@click.option(
    "--password",
    "passwords",
    metavar="WORD",
    multiple=True,
    help="Repeatable; or set GPROCHAT_PASSWORD.",
)
@model_option(BEHIND_A_SITE, default=OFFLINE)
@model_name_option
@click.option(
    "--url", "--base-url", "url", metavar="URL", help="The model's API, or the site behind."
)
@click.option(
    "--max-at-once", metavar="N", type=click.IntRange(1), help="Replies; more are told to wait."
)
@click.option(
    "--body-limit",
    metavar="BYTES",
    type=click.IntRange(1),
    default=4 * 1024 * 1024,
    help="Of a request; 4 MiB.",
)
@click.option("--certfile", type=_FILE, help="PEM; makes it https.")
@click.option("--keyfile", type=_FILE, help="PEM, if not in --certfile.")
@click.option("--access-log", is_flag=True, help="A line per request on stderr; no texts.")
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=30.0,
    help="For open replies at SIGTERM; 30.",
)
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="trio")
@click.help_option("--help", hidden=True)  # whoever sees the screen that this fills knows it
@click.pass_context
def serve(ctx: click.Context, /, *, host: str, port: int, backend: str, **options: Any) -> None:
    """Serve a site: GPROChat's wire, and OpenAI's API below /v1. Prints its URL."""
    # Not click's `envvar`: that would split it at spaces.
    if not options["passwords"] and (password := os.environ.get("GPROCHAT_PASSWORD")):
        options["passwords"] = (password,)
    given = {key: options.pop(key) for key in ("model", "model_name", "url")}
    model = _model(**given)
    try:
        tls = _tls(options.pop("certfile"), options.pop("keyfile"))
        anyio.run(
            partial(_serve, model, host=host, port=port, ssl_context=tls, **options),
            backend=backend,
        )
    except ValueError as error:
        say(str(error))
        ctx.exit(USAGE)
    except ImportError as error:
        say(str(error))
        ctx.exit(FAILED)
    except OSError as error:
        say(f"can not listen on {host}, port {port}: {error.strerror or error}")
        ctx.exit(FAILED)


def _model(model: str, model_name: str | None, url: str | None) -> Callable[[], Model | Client]:
    """Return what makes the model that answers, or a client of its API, which the caller closes.

    :raises ConfigError: For a name that is not configured.
    """
    if model in BEHIND_A_SITE:
        return lambda: (
            sample_model(model, model_name, url)
            or api_client(model, model_name, url, retry=_retry())
        )
    given = {"model_name": model_name, "url": url}
    site = configured_model(read_config(), model, BEHIND_A_SITE, given)
    return lambda: site.own_client(retry=_retry())


def _retry() -> Retry:
    from gprochat_anyio import Retry  # noqa: PLC0415 - 100 ms

    return Retry(attempts=2)


async def _serve(
    make_model: Callable[[], Model | Client],
    *,
    host: str,
    port: int,
    secret_key: str,
    passwords: tuple[str, ...],
    max_at_once: int | None,
    body_limit: int,
    access_log: bool,
    ssl_context: ssl.SSLContext | None,
    grace: float,
) -> None:
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
            max_at_once=max_at_once,
            body_limit=body_limit,
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
            click.echo(address)
            say("Ctrl-C stops it")
    if failure is not None:
        raise failure


async def _at_sigterm(
    act: Callable[[], None], *, task_status: anyio.abc.TaskStatus[anyio.CancelScope]
) -> None:
    """Act at the first SIGTERM; a second one is the system's, which ends the process."""
    with anyio.CancelScope() as scope:
        if os.name == "nt":  # pragma: no cover - has no such signal
            task_status.started(scope)
            return
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started(scope)
            await anext(aiter(signals))
        act()


def _tls(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    """The context of a server with this certificate.

    :raises ValueError: if it is none
    """
    if certfile is None:
        if keyfile is not None:
            raise ValueError("--keyfile needs its certificate: give --certfile")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        raise ValueError(
            f"can not use the certificate: {error.strerror or error}; give PEM files, and the"
            " certificate's own key"
        ) from None
    return context


def _log_to_stderr(name: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
