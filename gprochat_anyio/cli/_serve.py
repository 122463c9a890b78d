"""`gprochat serve`: the embedded site on a port."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import click

from ._config import read_config
from ._exit_codes import FAILED, USAGE, say
from ._model import BEHIND_A_SITE, OFFLINE, api_client, sample_model
from ._options import (
    SECONDS,
    base_url_option,
    hidden_help_option,
    model_name_option,
    model_option,
    url_option,
)
from ._served_site import serve_site
from ._sites import configured_model

if TYPE_CHECKING:
    from gprochat_anyio import Client, Retry
    from gprochat_anyio.site import Model

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(
    epilog="Ctrl-C ends it immediately, with open replies. Keys: GEMINI_API_KEY,"
    " OPENAI_API_KEY, GPROCHAT_UPSTREAM_SECRET_KEY, GPROCHAT_UPSTREAM_PASSWORD."
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    help="Listen here; all but 127.0.0.1 need a password.",
)
@click.option(
    "--port",
    metavar="NUMBER",
    type=click.IntRange(0, 65535),
    default=8000,
    help="The port (default 8000; 0 is a free one).",
)
@click.option(
    "--secret-key",
    metavar="KEY",
    envvar="GPROCHAT_SECRET_KEY",
    default="",
    help="Require this signature (or set GPROCHAT_SECRET_KEY).",
)
@click.option(
    "--password",
    "passwords",
    metavar="WORD",
    multiple=True,
    help="Accept this password (or set GPROCHAT_PASSWORD).",
)
@click.option(
    "--host-name",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Another name of the site; needed without password.",
)
@model_option(BEHIND_A_SITE, default=OFFLINE)
@model_name_option
@base_url_option
@url_option("Ask this site, for --model gprochat.")
@click.option(
    "--max-at-once",
    metavar="N",
    type=click.IntRange(1),
    help="Reply to at most N at once; refuse more for now.",
)
@click.option(
    "--body-limit",
    metavar="N",
    type=click.IntRange(1),
    default=4 * 1024 * 1024,
    help="Refuse requests of more bytes (default 4 MiB).",
)
@click.option("--certfile", type=_FILE, help="Serve https with this PEM file (and --keyfile).")
@click.option("--keyfile", type=_FILE, hidden=True)
@click.option("--no-page", is_flag=True, help="Do not serve the chat page at /.")
@click.option("--access-log", is_flag=True, help="Log each request on stderr, without texts.")
@click.option(
    "--grace",
    metavar="SECONDS",
    type=SECONDS,
    default=30.0,
    help="After SIGTERM, let replies end (default 30).",
)
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="trio", hidden=True)
@hidden_help_option
@click.pass_context
def serve(ctx: click.Context, /, *, host: str, port: int, backend: str, **options: Any) -> None:
    """Serve a site: GPROChat's wire, and OpenAI's API below /v1. Prints its URL."""
    # click's `envvar` would split the password at spaces.
    if not options["passwords"] and (password := os.environ.get("GPROCHAT_PASSWORD")):
        options["passwords"] = (password,)
    given = {key: options.pop(key) for key in ("model", "model_name", "base_url", "url")}
    model = _model(**given)
    try:
        tls = _tls(options.pop("certfile"), options.pop("keyfile"))
        anyio.run(
            partial(serve_site, model, host=host, port=port, ssl_context=tls, **options),
            backend=backend,
        )
    except ValueError as error:
        say(str(error))
        ctx.exit(USAGE)
    except ImportError as error:
        say(str(error))
        ctx.exit(FAILED)
    except OSError as error:
        reason = error.strerror or error
        say(f"cannot listen on {host}, port {port}: {reason}; choose another --port or --host")
        ctx.exit(FAILED)


def _model(
    model: str, model_name: str | None, base_url: str | None, url: str | None
) -> Callable[[], Model | Client]:
    """Return a function that returns the model or a client, which its caller closes.

    :raises ConfigError: If the model is not configured.
    :raises click.UsageError: If an address does not belong to the kind of model.
    """
    is_site = model == "gprochat"
    if url is not None and not is_site:
        raise click.UsageError(
            "--url is the site of --model gprochat; the address of a model's API is --base-url."
        )
    if base_url is not None and is_site:
        raise click.UsageError("--model gprochat asks a site: give its address as --url.")
    if model in BEHIND_A_SITE:
        place = url if is_site else base_url
        return lambda: (
            sample_model(model, model_name, place)
            or api_client(model, model_name, place, retry=_retry())
        )
    given = {"model_name": model_name, "base_url": base_url}
    site = configured_model(read_config(), model, BEHIND_A_SITE, given)
    return lambda: site.own_client(retry=_retry())


def _retry() -> Retry:
    from gprochat_anyio import Retry  # noqa: PLC0415 - 100 ms

    return Retry(attempts=2)


def _tls(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    """Return the TLS context of a server. None without a certificate.

    :raises ValueError: If the certificate cannot be used.
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
            f"cannot use the certificate: {error.strerror or error}; give PEM files, and the"
            " certificate's own key"
        ) from None
    return context
