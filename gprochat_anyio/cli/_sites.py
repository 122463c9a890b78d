"""Which site is asked: options over the environment over the configuration file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from ._config import CLOCKS, Config, ConfigError, read_config

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gprochat_anyio._client import Client

_F = TypeVar("_F", bound=Callable[..., Any])
_CREDENTIALS: Final = (("secret_key", "GPROCHAT_SECRET_KEY"), ("password", "GPROCHAT_PASSWORD"))


class Site(NamedTuple):
    """A site to ask. Its `repr` shows no secret."""

    url: str | None
    """None: the embedded one."""
    name: str | None = None
    """Of the configuration file."""
    secret_key: str = ""
    password: str | None = None
    proxy: str | None = None
    timeouts: Mapping[str, float] = {}

    def __repr__(self) -> str:
        return f"<Site {self.label}>"

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.name or self.url or "embedded"

    def client(self, **settings: Any) -> Client:
        """A client of it, which the caller closes.

        :param settings: of `Client`, besides
        :raises ValueError: for a setting that can not be
        """
        from gprochat_anyio._client import Client  # noqa: PLC0415 - not for `--help`
        from gprochat_anyio._timeouts import Timeouts  # noqa: PLC0415

        own: dict[str, Any] = {
            "url": self.url,
            "secret_key": self.secret_key,
            "password": self.password,
            "timeouts": Timeouts(**self.timeouts),
            "proxy": self.proxy,
        }
        return Client(**own | settings)


def complete_site(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For the shell: the names in the configuration file."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for the shell

    try:
        sites = read_config().sites
    except ConfigError:
        return []
    return [CompletionItem(n, help=s.url) for n, s in sites.items() if n.startswith(incomplete)]


def site_option(*, multiple: bool = False) -> Callable[[_F], _F]:
    """`--site NAME`, for a command that gives its context to `chosen_sites` or `overlay`."""
    return click.option(
        "--site",
        metavar="NAME",
        multiple=multiple,
        shell_complete=complete_site,
        help="A site of the configuration file.",
    )


def chosen_sites(ctx: click.Context, config: Config | None = None) -> list[Site]:
    """The sites that a command's options name: all of them, or else the environment's, or the
    configuration's default; none, if nothing names one.

    A password is sent to no site that it was not meant for: GPROCHAT_SECRET_KEY and
    GPROCHAT_PASSWORD belong to GPROCHAT_URL if that is set; else they go before the file's.

    :param config: if it was read already
    :raises ConfigError: for a name that the configuration does not have
    """
    names, urls = _several(ctx, "site"), _several(ctx, "url")
    given, env = _given(ctx), _environment()
    env_url = os.environ.get("GPROCHAT_URL")
    if not names and not urls:
        if env_url:
            urls = [env_url]
        elif (config := config or read_config()).default is not None:
            names = [config.default]
    sites = []
    if names:
        config = config or read_config()
        env_of_names = {} if env_url else env
        sites = [named_site(config, n, given, env_of_names) for n in names]
    return sites + [environment_site(ctx, url) for url in urls]


def named_site(
    config: Config,
    name: str,
    given: Mapping[str, Any] | None = None,
    env: Mapping[str, Any] | None = None,
) -> Site:
    """A site of the configuration.

    :param given: settings that go before those of the file
    :raises ConfigError: if it has none of that name
    """
    site = config.site(name)
    file = {key: value for key, value in site._asdict().items() if value is not None}
    del file["url"], file["timeouts"]
    clocks = {f"timeout_{clock}": seconds for clock, seconds in site.timeouts.items()}
    return _site(site.url, name, file | clocks | dict(env or {}) | dict(given or {}))


def overlay(ctx: click.Context) -> dict[str, Any]:
    """For a command of one site: its options `url`, `secret_key`, `password`, `proxy` and
    `timeout_...`, with what the environment and the configuration file say.

    :raises click.UsageError: for more than one site
    :raises ConfigError: if the configuration can not be used
    """
    sites = chosen_sites(ctx)
    if len(sites) > 1:
        raise click.UsageError("give --site or --url, not both.")
    site = sites[0] if sites else environment_site(ctx, None)
    clocks = {f"timeout_{clock}": site.timeouts.get(clock) for clock in CLOCKS}
    return {
        "url": site.url,
        "secret_key": site.secret_key,
        "password": site.password,
        "proxy": site.proxy,
        **clocks,
    }


def environment_site(ctx: click.Context, url: str | None) -> Site:
    """A site that has no name: what it needs besides is of the options and the environment.

    :param url: None is the embedded one
    """
    return _site(url, None, _environment() | _given(ctx))


def kept_site(ctx: click.Context, config: Config, name: str | None, url: str | None) -> Site:
    """The site of a chat that was kept. Its name goes before its URL, which may have moved."""
    elsewhere = os.environ.get("GPROCHAT_URL") or url
    if name in config.sites:
        env = _environment() if elsewhere == url else {}
        return named_site(config, str(name), _given(ctx), env)
    return environment_site(ctx, url) if elsewhere == url else _site(url, None, _given(ctx))


def _site(url: str | None, name: str | None, settings: Mapping[str, Any]) -> Site:
    clocks = {c: settings[f"timeout_{c}"] for c in CLOCKS if f"timeout_{c}" in settings}
    own = {key: settings[key] for key in ("secret_key", "password", "proxy") if key in settings}
    return Site(url, name, **own, timeouts=clocks)


def _environment() -> dict[str, Any]:
    return {key: os.environ[var] for key, var in _CREDENTIALS if os.environ.get(var)}


def _given(ctx: click.Context) -> dict[str, Any]:
    """What was given on the command line itself."""
    on_line = ParameterSource.COMMANDLINE
    return {k: v for k, v in ctx.params.items() if ctx.get_parameter_source(k) is on_line}


def _several(ctx: click.Context, option: str) -> list[str]:
    value = _given(ctx).get(option) or ()
    return [value] if isinstance(value, str) else list(value)
