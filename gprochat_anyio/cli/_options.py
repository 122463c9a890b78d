"""Options that several commands share, such as those that choose a site or a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ._config import Config, read_config
from ._config_file import CLOCKS, ConfigError
from ._help import show_help
from ._model import BEHIND_A_SITE, IN_PROCESS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_F = TypeVar("_F", bound=Callable[..., Any])
_Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def site_option(*, multiple: bool = False) -> Callable[[_F], _F]:
    """Return the option `--site NAME`, which `chosen_sites` and `one_site` read."""
    return click.option(
        "--site",
        metavar="NAME",
        multiple=multiple,
        shell_complete=complete_site,
        help="Ask this configured site, fleet or model.",
    )


def model_option(kinds: tuple[str, ...] = IN_PROCESS, **settings: Any) -> Callable[[_F], _F]:
    """Return the option `--model NAME`: a configured model, or a kind.

    :param settings: Further settings of `click.option`.
    """
    return click.option(
        "-m",
        "--model",
        metavar="NAME",
        callback=_refuse_kinds_but(kinds),
        shell_complete=_completing(lambda config: dict.fromkeys(kinds, "") | _models(config)),
        help=f"A configured model, or {', '.join(k for k in kinds if k in IN_PROCESS)}.",
        **settings,
    )


def url_option(help: str, **settings: Any) -> Callable[[_F], _F]:
    """Return the option `--url URL`: the address of a GPROChat site."""
    return click.option("--url", metavar="URL", help=help, **settings)


model_name_option = click.option(
    "--model-name", metavar="NAME", help="The name of the API's model, such as llama3.2."
)
base_url_option = click.option(
    "--base-url", metavar="URL", help="The address of the model's API, ending in /v1."
)
secret_key_option = click.option(
    "--secret-key", metavar="KEY", help="Sign requests with KEY (or set GPROCHAT_SECRET_KEY)."
)
password_option = click.option(
    "--password", metavar="WORD", help="The site's password (or set GPROCHAT_PASSWORD)."
)
proxy_option = click.option(
    "--proxy", metavar="URL", help="Connect through this http, https or socks5 proxy."
)
hidden_proxy_option = click.option("--proxy", metavar="URL", hidden=True)
# Trio's name lookups can be cancelled, so timeouts end the command even when DNS hangs.
backend_option = click.option(
    "--backend", type=click.Choice(["asyncio", "trio"]), default="trio", hidden=True
)
# For a help text that fills the screen. Its readers know the option.
hidden_help_option = click.help_option("-h", "--help", hidden=True, callback=show_help)

FURTHER: Final = """\
Also: --proxy URL, --backend asyncio or trio, and limits in SECONDS:
--timeout-connect, --timeout-first-chunk, --timeout-idle, --timeout-total."""
"""The epilog that names the hidden options of a request."""


class ChatId(click.ParamType):  # type: ignore[type-arg]  # generic in some versions
    """The ID of a chat in the log."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the ID as a number."""
        text = str(value)
        if not (text.isascii() and text.isdigit()) or int(text) > _LARGEST_ID:
            self.fail(
                f"{text!r} is not the ID of a chat; `gprochat logs` shows the IDs.", param, ctx
            )
        return int(text)


_LARGEST_ID: Final = 2**63 - 1  # of SQLite


class Seconds(click.FloatRange):
    """A duration in seconds, which may be infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the duration as a number. NaN is none, though no comparison excludes it."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail("give a number of seconds, or inf for no limit.", param, ctx)
        return seconds


SECONDS: Final = Seconds(min=0)
_seconds = partial(click.option, metavar="SECONDS", type=SECONDS, hidden=True)


def timeout_options(command: _F) -> _F:
    """Add the four timeouts of a request, which `FURTHER` names."""
    for clock in reversed(CLOCKS):
        command = _seconds(f"--timeout-{clock.replace('_', '-')}")(command)
    return command


def _refuse_kinds_but(
    kinds: tuple[str, ...],
) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return a callback that refuses other kinds of models."""

    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value in BEHIND_A_SITE and value not in kinds:
            known = ", ".join(kinds)
            raise click.BadParameter(f"{value!r} is not one of {known}, nor a configured model.")
        return value

    return check


def _completing(names: Callable[[Config], Mapping[str, str]]) -> _Complete:
    """Return a completion for the shell.

    :param names: Returns the names and their descriptions.
    """

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for the shell

        try:
            config = read_config()
        except ConfigError:
            config = Config()
        known = names(config)
        return [CompletionItem(n, help=h) for n, h in known.items() if n.startswith(incomplete)]

    return complete


def _models(config: Config) -> dict[str, str]:
    return {name: model.label for name, model in config.models.items()}


def _all(config: Config) -> dict[str, str]:
    sites = {name: site.url for name, site in config.sites.items()}
    fleets = {name: ", ".join(members) for name, members in config.fleets.items()}
    return sites | fleets | _models(config)


complete_site = _completing(_all)
