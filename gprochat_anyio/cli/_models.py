"""`gprochat models`: the configured models, and those that servers offer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import anyio
import click

from gprochat_anyio import GPROChatError, Timeouts
from gprochat_anyio._request.chat_client import opener_of

from ._config import Config, read_config
from ._exit_codes import FAILED, exit_status, say
from ._help import help_option
from ._model import APIS, GOOGLE
from ._options import backend_option, base_url_option, model_option, proxy_option
from ._output import Output, PipeClosedError, json_line
from ._site import Site
from ._sites import chosen_sites, named_site

_LIMITS: Final = Timeouts(connect=10, first_chunk=20, idle=20, total=30)
_EPILOG: Final = """\b
* marks the default. --remote -m NAME prints only the names of that server's
models. Also: --backend asyncio or trio. Exit status: as with ask, of the
first server that fails."""


@click.command(epilog=_EPILOG)
@model_option(APIS)
@base_url_option
@proxy_option
@click.option("--remote", is_flag=True, help="Ask servers for the models that they offer.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each line.")
@backend_option
@help_option
@click.pass_context
def models(
    ctx: click.Context,
    /,
    *,
    model: str | None,
    base_url: str | None,
    remote: bool,
    as_json: bool,
    backend: str,
    proxy: str | None,
) -> None:
    """List the models, sites and fleets that are configured."""
    if base_url is not None and model is None:
        raise click.UsageError(f"--base-url needs its kind: give --model {' or '.join(APIS)}.")
    config = read_config()
    given = {} if proxy is None else {"proxy": proxy}
    sites = [named_site(config, name, given) for name in config.names]
    if model is not None:
        sites = chosen_sites(ctx, config)
    if remote:
        sites = [site for site in sites if site.model is not None]
    if not sites:
        say(f"no models are configured: add [models.NAME] to {config.path}{config.to_be_made}")
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
    """The models that one server offers."""

    def __init__(self, site: Site) -> None:
        # A client needs the name of a model, although a list does not.
        self._site = site._replace(model="openai/any") if site.model == "openai" else site
        self.name = site.label
        self.models: list[str] = []
        self.failure: Exception | None = None

    @property
    def reason(self) -> str:
        """The message of the failure, empty without one."""
        return "" if self.failure is None else self._site.words_of(self.failure)

    @property
    def facts(self) -> dict[str, object]:
        """The offer as an object for `--json`."""
        failure = self.failure
        error = failure and {"type": type(failure).__name__, "message": self.reason}
        return {"name": self.name, "models": self.models, "error": error}

    async def ask(self) -> None:
        """Ask the server for its models."""
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
    """Show the offers, and return the exit status.

    :param bare: Leave out the names in the configuration.
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
    """Return the address without credentials and query."""
    try:
        parts = urlsplit(site.url or GOOGLE)
    except ValueError:
        return "an invalid address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _write_rows(output: Output, rows: Sequence[tuple[str, ...]]) -> None:
    """Write aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        output.write("  ".join(cells).rstrip() + "\n")
