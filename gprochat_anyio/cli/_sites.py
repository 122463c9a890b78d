"""Who is asked: options over the environment over the configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import click
from click.core import ParameterSource

from ._config import Config, read_config
from ._config_file import CLOCKS, ConfigError
from ._model import IN_PROCESS, api_url
from ._site import Site

_CREDENTIALS: Final = (("secret_key", "GPROCHAT_SECRET_KEY"), ("password", "GPROCHAT_PASSWORD"))


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
        if given["model"] not in IN_PROCESS:
            config = config or read_config()
            return [configured_model(config, given["model"], IN_PROCESS, given)]
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
    """A site, a fleet or a model of the configuration.

    :param given: settings that go before those of the file
    :raises ConfigError: if it has none of that name
    """
    if name in config.fleets:
        members = tuple(named_site(config, n, given, env) for n in config.fleets[name])
        return Site(" ".join(m.url or m.label for m in members), name, members=members)
    if name in config.models:
        model = config.models[name]
        own = {} if model.proxy is None else {"proxy": model.proxy}
        site = _site(model.base_url, name, own | _clocks(model.timeouts) | dict(given or {}))
        return site._replace(model=model.label, configured=model)
    named = config.site(name)
    file = {key: value for key, value in named._asdict().items() if value is not None}
    del file["url"], file["timeouts"]
    file |= _clocks(named.timeouts)
    return _site(named.url, name, file | dict(env or {}) | dict(given or {}))


def configured_model(
    config: Config, name: str, kinds: tuple[str, ...], given: Mapping[str, Any]
) -> Site:
    """Return the model of the configuration that `--model` names.

    :param kinds: that `--model` takes besides, for the error
    :param given: the options on the command line
    :raises ConfigError: If there is none of that name.
    :raises click.UsageError: For options that the configuration has the place of.
    """
    config.model(name, kinds)
    if given.get("url") or given.get("model_name"):
        raise click.UsageError(
            f"[models.{name}] says the address and the model: leave --url and --model-name out, or"
            " give a kind as --model."
        )
    return named_site(config, name, given)


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
    if model is not None and name is not None:
        if name not in config.models:  # its key is not known any more, or not meant for the address
            raise ConfigError(
                f"this chat was with [models.{name}], which {config.path} does not have; give a"
                " --model or a --site to go on with"
            )
        return named_site(config, name, given)
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


def _clocks(timeouts: Mapping[str, float]) -> dict[str, float]:
    return {f"timeout_{clock}": seconds for clock, seconds in timeouts.items()}


def _environment() -> dict[str, Any]:
    return {key: os.environ[var] for key, var in _CREDENTIALS if os.environ.get(var)}


def _given(ctx: click.Context) -> dict[str, Any]:
    """What was given on the command line itself."""
    on_line = ParameterSource.COMMANDLINE
    return {k: v for k, v in ctx.params.items() if ctx.get_parameter_source(k) is on_line}


def _several(ctx: click.Context, option: str) -> list[str]:
    value = _given(ctx).get(option) or ()
    return [value] if isinstance(value, str) else list(value)
