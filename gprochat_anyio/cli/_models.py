"""`gprochat models`: what is configured, and the models that servers offer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import anyio
import click

from gprochat_anyio import GPROChatError, Timeouts
from gprochat_anyio._request.chat_client import opener_of

from ._config import Config, read_config
from ._exits import FAILED, exit_status, say
from ._model import APIS, GOOGLE
from ._options import model_option
from ._output import Output, PipeClosedError, json_line
from ._site import Site
from ._sites import chosen_sites, named_site

_LIMITS: Final = Timeouts(connect=10, first_chunk=20, idle=20, total=30)
_EPILOG: Final = """\b
* marks the default. With --remote, -m NAME gives the bare names that its
server offers. Exit status: as with ask, by the first server that fails."""


@click.command(epilog=_EPILOG)
@model_option(APIS)
@click.option("--url", "--base-url", "url", metavar="URL", help="Of the API of a kind.")
@click.option("--proxy", metavar="URL", help="http://, https:// or socks5://")
@click.option("--remote", is_flag=True, help="Ask servers for the models that they offer.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option(
    "--backend", type=click.Choice(["asyncio", "trio"]), default="trio", show_default=True
)
@click.pass_context
def models(
    ctx: click.Context,
    /,
    *,
    model: str | None,
    url: str | None,
    remote: bool,
    as_json: bool,
    backend: str,
    proxy: str | None,
) -> None:
    """List the models, sites and fleets that are configured."""
    if url is not None and model is None:
        raise click.UsageError(f"--url needs its kind: give --model {' or '.join(APIS)}.")
    config = read_config()
    given = {} if proxy is None else {"proxy": proxy}
    sites = [named_site(config, name, given) for name in config.names]
    if model is not None:
        sites = chosen_sites(ctx, config)
    if remote:
        sites = [site for site in sites if site.model is not None]
    if not sites:
        say(f"no models are configured: add [models.NAME] to {config.path}")
    status = 0
    try:
        output = Output()
        if remote:
            offers = [_Offer(site) for site in sites]
            anyio.run(_ask, offers, backend=backend)
            status = _show_offers(output, offers, as_json=as_json, bare=model is not None)
        else:
            _show_sites(output, config, sites, as_json=as_json)
    except PipeClosedError:
        status = 0
    except OSError as error:  # of stdout
        say(error.strerror or str(error))
        status = FAILED
    ctx.exit(status)


class _Offer:
    """The models that one server offers, once it was asked."""

    def __init__(self, site: Site) -> None:
        # A list is not of one model; the settings of a client are.
        self._site = site._replace(model="openai/any") if site.model == "openai" else site
        self.name = site.label
        self.models: list[str] = []
        self.failure: Exception | None = None

    @property
    def reason(self) -> str:
        """The words for the failure."""
        return "" if self.failure is None else self._site.words_of(self.failure)

    @property
    def facts(self) -> dict[str, object]:
        """The object for `--json`."""
        failure = self.failure
        error = failure and {"type": type(failure).__name__, "message": self.reason}
        return {"name": self.name, "models": self.models, "error": error}

    async def ask(self) -> None:
        """Ask the server."""
        try:
            async with self._site.own_client(timeouts=_LIMITS) as client:
                self.models = await opener_of(client).list_models()
        except (GPROChatError, ValueError) as error:
            self.failure = error


async def _ask(offers: Sequence[_Offer]) -> None:
    async with anyio.create_task_group() as tg:
        for offer in offers:
            tg.start_soon(offer.ask)


def _show_offers(output: Output, offers: Sequence[_Offer], *, as_json: bool, bare: bool) -> int:
    """Show what servers offer, and return the exit status.

    :param bare: True to leave out the names of the configuration
    """
    for offer in offers:
        if offer.failure is not None:
            say(f"{offer.name}: {offer.reason}")
    if as_json:
        for offer in offers:
            output.write(json_line(offer.facts))
    elif bare:
        for offer in offers:
            output.write("".join(f"{model}\n" for model in offer.models))
    else:
        _write_rows(output, [(offer.name, model) for offer in offers for model in offer.models])
    return next((exit_status(o.failure) for o in offers if o.failure is not None), 0)


def _show_sites(output: Output, config: Config, sites: Sequence[Site], *, as_json: bool) -> None:
    rows = []
    for site in sites:
        kind, _, model = (site.model or "").partition("/")
        members = [member.label for member in site.members]
        facts = {
            "name": site.label,
            "kind": kind or ("fleet" if members else "gprochat"),
            "model": model or None,
            "url": None if members else _address(site),
            "members": members or None,
            "default": site.name is not None and site.name == config.default,
        }
        if as_json:
            output.write(json_line(facts))
        mark = "*" if facts["default"] else " "
        place = ", ".join(members) if members else _address(site)
        rows.append((f"{mark} {site.label}", str(facts["kind"]), model or "-", place))
    if not as_json:
        _write_rows(output, rows)


def _address(site: Site) -> str:
    """Return the address without what a client would refuse in it: credentials, and a query."""
    try:
        parts = urlsplit(site.url or GOOGLE)
    except ValueError:
        return "an invalid address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _write_rows(output: Output, rows: Sequence[tuple[str, ...]]) -> None:
    """Write columns, aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        output.write("  ".join(cells).rstrip() + "\n")
