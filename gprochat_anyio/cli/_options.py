"""The options that say who is asked, the same for all commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._config import Config, read_config
from ._config_file import ConfigError
from ._model import BEHIND_A_SITE, IN_PROCESS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_F = TypeVar("_F", bound=Callable[..., Any])
_Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def site_option(*, multiple: bool = False) -> Callable[[_F], _F]:
    """`--site NAME`, for a command that gives its context to `chosen_sites` or `one_site`."""
    return click.option(
        "--site",
        metavar="NAME",
        multiple=multiple,
        shell_complete=complete_site,
        help="Configured: a site, a fleet or a model.",
    )


def model_option(kinds: tuple[str, ...] = IN_PROCESS, **settings: Any) -> Callable[[_F], _F]:
    """`--model NAME`, of a model of the configuration file, or a kind.

    :param settings: of `click.option`, besides
    """
    return click.option(
        "-m",
        "--model",
        metavar="NAME",
        callback=_refuse_kinds_but(kinds),
        shell_complete=_completing(lambda config: dict.fromkeys(kinds, "") | _models(config)),
        help=f"Configured; or {', '.join(kinds)}.",
        **settings,
    )


model_name_option = click.option(
    "--model-name", metavar="NAME", help="Which of its API's: gemini-2.5-pro, llama3.2"
)


def _refuse_kinds_but(
    kinds: tuple[str, ...],
) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return a callback that refuses a kind that the command has no use for."""

    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value in BEHIND_A_SITE and value not in kinds:
            known = ", ".join(kinds)
            raise click.BadParameter(f"{value!r} is not one of {known}, nor a configured model.")
        return value

    return check


def _completing(names: Callable[[Config], Mapping[str, str]]) -> _Complete:
    """Return a completion for the shell.

    :param names: returns the names, each with what to say of it
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
