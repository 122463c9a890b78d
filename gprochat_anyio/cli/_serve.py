"""`gprochat serve`: the embedded site, for others to ask."""

from __future__ import annotations

import os
from functools import partial

import anyio
import click

from ._exits import FAILED, USAGE, say


@click.command(epilog="Ctrl-C ends it at once, with exit status 130, and cuts open replies off.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    metavar="NUMBER",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0: a free one.",
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
@click.option(
    "--backend", type=click.Choice(["asyncio", "trio"]), default="trio", show_default=True
)
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    *,
    host: str,
    port: int,
    secret_key: str,
    passwords: tuple[str, ...],
    backend: str,
) -> None:
    """Serve the embedded site: the GPROChat wire, answered offline.

    Its URL is the one line on stdout. Another address than loopback needs a
    password.
    """
    # Not click's `envvar`: that would split it at spaces.
    if not passwords and (password := os.environ.get("GPROCHAT_PASSWORD")):
        passwords = (password,)
    run = partial(_serve, host=host, port=port, secret_key=secret_key, passwords=passwords)
    try:
        anyio.run(run, backend=backend)
    except ValueError as error:
        say(str(error))
        ctx.exit(USAGE)
    except ImportError as error:
        say(str(error))
        ctx.exit(FAILED)
    except OSError as error:
        say(f"can not listen on {host}, port {port}: {error.strerror or error}")
        ctx.exit(FAILED)


async def _serve(*, host: str, port: int, secret_key: str, passwords: tuple[str, ...]) -> None:
    from gprochat_anyio.site import serve as serve_site  # noqa: PLC0415 - 100 ms

    failure: Exception | None = None
    async with anyio.create_task_group() as tg:
        try:
            url = await tg.start(
                partial(
                    serve_site, host=host, port=port, secret_key=secret_key, passwords=passwords
                )
            )
        except (OSError, ValueError) as error:
            failure = error  # bare; the task group would wrap it
        else:
            click.echo(url)
            say("Ctrl-C stops it")
    if failure is not None:
        raise failure
