"""Who is asked: options over the environment over the configuration file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from ._config import CLOCKS, Config, ConfigError, read_config
from ._model import api_url

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gprochat_anyio import Client, Fleet

_F = TypeVar("_F", bound=Callable[..., Any])
_CREDENTIALS: Final = (("secret_key", "GPROCHAT_SECRET_KEY"), ("password", "GPROCHAT_PASSWORD"))


class Site(NamedTuple):
    """A site to ask, or a model with no site. Its `repr` shows no secret."""

    url: str | None
    """Of the site, or of the model's API. None, and no model: the embedded site."""
    name: str | None = None
    """Of the configuration file."""
    secret_key: str = ""
    password: str | None = None
    proxy: str | None = None
    timeouts: Mapping[str, float] = {}
    members: tuple[Site, ...] = ()
    """The sites of a fleet; its `url` has all addresses then."""
    model: str | None = None
    """What `--model` says, and after a slash what `--model-name` says."""

    def __repr__(self) -> str:
        return f"<Site {self.label}>"

    @property
    def label(self) -> str:
        """What a person calls it."""
        return label(self.name, self.model, self.url)

    @property
    def inside(self) -> bool:
        """True if no site is asked: a model in this process, or the API of one."""
        return self.url is None or self.model is not None

    def words_of(self, error: Exception) -> str:
        """Return what to say of a failure."""
        notes = getattr(error, "__notes__", ()) if self.members else ()  # of the other sites
        return "; ".join((str(error), *notes))

    def client(self, **settings: Any) -> Client | Fleet:
        """A client of it, or a fleet of clients, which the caller closes.

        :param settings: of `Client`, besides
        :raises ValueError: for a setting that can not be
        """
        if self.members:
            from gprochat_anyio import Fleet  # noqa: PLC0415 - as below

            return Fleet([member.own_client(**settings) for member in self.members])
        return self.own_client(**settings)

    def own_client(self, **settings: Any) -> Client:
        """Return a client of it, which is no fleet; see `client`."""
        from gprochat_anyio import Client, Timeouts  # noqa: PLC0415 - not for `--help`

        own: dict[str, Any] = {
            "url": self.url,
            "secret_key": self.secret_key,
            "password": self.password,
            "timeouts": Timeouts(**self.timeouts),
            "proxy": self.proxy,
        }
        return Client(**own | settings)


def label(name: str | None, model: str | None, url: str | None) -> str:
    """What a person calls who answers."""
    return name or model or url or "embedded"


def complete_site(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For the shell: the names in the configuration file."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for the shell

    try:
        config = read_config()
    except ConfigError:
        return []
    known = {name: site.url for name, site in config.sites.items()}
    known |= {name: ", ".join(members) for name, members in config.fleets.items()}
    return [CompletionItem(n, help=h) for n, h in known.items() if n.startswith(incomplete)]


def site_option(*, multiple: bool = False) -> Callable[[_F], _F]:
    """`--site NAME`, for a command that gives its context to `chosen_sites` or `one_site`."""
    return click.option(
        "--site",
        metavar="NAME",
        multiple=multiple,
        shell_complete=complete_site,
        help="A site or a fleet of the configuration file.",
    )


def chosen_sites(ctx: click.Context, config: Config | None = None) -> list[Site]:
    """What a command's options name: a model, or sites, all of them; or else the environment's
    site, or the configuration's default; none, if nothing names one.

    A password is sent to no site that it was not meant for: GPROCHAT_SECRET_KEY and
    GPROCHAT_PASSWORD belong to GPROCHAT_URL if that is set; else they go before the file's.

    :param config: if it was read already
    :raises ConfigError: for a name that the configuration does not have
    :raises click.UsageError: for options that contradict each other
    """
    names, urls = _several(ctx, "site"), _several(ctx, "url")
    given, env = _given(ctx), _environment()
    if "model" in given:
        if names:
            raise click.UsageError("--model asks no site: give --model or --site.")
        if len(urls) > 1:
            raise click.UsageError("--model takes one --base-url.")
        return [_model(given, "".join(urls) or None)]
    if "model_name" in given:
        raise click.UsageError("--model-name needs its --model: gemini or openai.")
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
    """A site or a fleet of the configuration.

    :param given: settings that go before those of the file
    :raises ConfigError: if it has none of that name
    """
    if name in config.fleets:
        members = tuple(named_site(config, n, given, env) for n in config.fleets[name])
        return Site(" ".join(str(member.url) for member in members), name, members=members)
    site = config.site(name)
    file = {key: value for key, value in site._asdict().items() if value is not None}
    del file["url"], file["timeouts"]
    clocks = {f"timeout_{clock}": seconds for clock, seconds in site.timeouts.items()}
    return _site(site.url, name, file | clocks | dict(env or {}) | dict(given or {}))


def one_site(ctx: click.Context) -> Site:
    """For a command that asks one: what its options, the environment or the configuration name,
    or else the embedded site.

    :raises click.UsageError: for more than one, or options that need a site without one
    :raises ConfigError: if the configuration can not be used
    """
    sites = chosen_sites(ctx)
    if len(sites) > 1:
        raise click.UsageError("give --site or --url, not both.")
    return sites[0] if sites else embedded_site(ctx)


def embedded_site(ctx: click.Context) -> Site:
    """The site that answers where none is named.

    :raises click.UsageError: for a proxy, which is no way to it
    """
    given = _given(ctx)
    if given.get("proxy"):
        raise click.UsageError("--proxy needs a site: give --url, or set GPROCHAT_URL.")
    return _site(None, None, given)


def environment_site(ctx: click.Context, url: str) -> Site:
    """A site that has no name: what it needs besides is of the options and the environment."""
    return _site(url, None, _environment() | _given(ctx))


def kept_site(
    ctx: click.Context,
    config: Config,
    name: str | None,
    url: str | None,
    model: str | None = None,
) -> Site:
    """Who answered in a chat that was kept. A site's name goes before its URL, which may have
    moved."""
    given = _given(ctx)
    if model is not None or url is None:
        return _site(url, None, given)._replace(model=model)
    elsewhere = os.environ.get("GPROCHAT_URL") or url
    if name in config.names:
        return named_site(config, str(name), given, _environment() if elsewhere == url else {})
    return environment_site(ctx, url) if elsewhere == url else _site(url, None, given)


def _model(given: Mapping[str, Any], url: str | None) -> Site:
    kind = given["model"]
    name = given.get("model_name")
    model = f"{kind}/{name}" if name else kind
    return _site(api_url(kind, url), None, given)._replace(model=model)


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
