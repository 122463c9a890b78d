"""The choice of sites: options override the environment, which overrides the configuration."""

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
    """Return the sites or the model that a command's options name.

    Without any, return the environment's site or the configuration's default, or an empty list.

    A password is sent only to the site that it is meant for. GPROCHAT_SECRET_KEY and
    GPROCHAT_PASSWORD belong to GPROCHAT_URL if that is set; else they override the file's.

    :param config: The configuration, if it has been read.
    :raises ConfigError: If the configuration does not have a name.
    :raises click.UsageError: If options contradict each other.
    """
    names, urls = _several(ctx, "site"), _several(ctx, "url")
    given, env = _given(ctx), _environment()
    _check_model_options(given)
    if "model" in given:
        if given["model"] not in IN_PROCESS:
            config = config or read_config()
            return [configured_model(config, given["model"], IN_PROCESS, given)]
        return [model_site(given["model"], given.get("model_name"), given.get("base_url"), given)]
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
    """Return a site, a fleet or a model of the configuration.

    :param given: Settings of the command line, which override all others.
    :param env: Settings of the environment, which override those of the file.
    :raises ConfigError: If the configuration does not have the name.
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

    :param kinds: The kinds that `--model` accepts too, for the error message.
    :param given: The options of the command line.
    :raises ConfigError: If there is none with this name.
    :raises click.UsageError: If options contradict the configuration.
    """
    config.model(name, kinds)
    if given.get("base_url") or given.get("model_name"):
        raise click.UsageError(
            f"[models.{name}] sets the address and the model: leave --base-url and --model-name"
            " out, or give a kind as --model."
        )
    return named_site(config, name, given)


def one_site(ctx: click.Context, config: Config | None = None) -> Site:
    """Return the one site that options, environment or configuration name, or the embedded one.

    :param config: The configuration, if it has been read.
    :raises click.UsageError: If there are several, or an option needs a site and there is none.
    :raises ConfigError: If the configuration cannot be used.
    """
    sites = chosen_sites(ctx, config)
    if len(sites) > 1:
        raise click.UsageError("give --site or --url, not both.")
    return sites[0] if sites else embedded_site(ctx)


def embedded_site(ctx: click.Context) -> Site:
    """Return the site that replies if none is named.

    :raises click.UsageError: If a proxy is given, which the site does not use.
    """
    given = _given(ctx)
    if given.get("proxy"):
        raise click.UsageError("--proxy needs a site: give --url, or set GPROCHAT_URL.")
    return _site(None, None, given)


def environment_site(ctx: click.Context, url: str) -> Site:
    """Return a site without a name, with the credentials of the options and the environment."""
    return _site(url, None, _environment() | _given(ctx))


def kept_site(
    ctx: click.Context,
    config: Config,
    name: str | None,
    url: str | None,
    model: str | None = None,
) -> Site:
    """Return the site or model of a logged chat. A site is found by its name before its URL, which
    may have changed."""
    given = _given(ctx)
    if model is not None and name is not None:
        title, _, other = name.partition("/")
        if name not in config.models and other and title in config.models:  # chosen by `/model`
            return named_site(config, title, given).with_model(other)
        if name not in config.models:  # its key is unknown, or not meant for the address
            raise ConfigError(
                f"this chat was with [models.{name}], which {config.path} does not have; give a"
                " --model or a --site to continue with"
            )
        return named_site(config, name, given)
    if model is not None or url is None:
        return _site(url, None, given)._replace(model=model)
    elsewhere = os.environ.get("GPROCHAT_URL") or url
    if name in config.names:
        return named_site(config, str(name), given, _environment() if elsewhere == url else {})
    return environment_site(ctx, url) if elsewhere == url else _site(url, None, given)


def _check_model_options(given: Mapping[str, Any]) -> None:
    """Refuse options of a site beside `--model`, and those of a model without it."""
    if "model" not in given:
        for option in ("--model-name", "--base-url"):
            if option[2:].replace("-", "_") in given:
                raise click.UsageError(f"{option} needs its --model: gemini or openai.")
    elif given.get("site"):
        raise click.UsageError("--model and --site exclude each other; give one.")
    elif given.get("url"):
        raise click.UsageError(
            "--url is the address of a site, which --model does not ask: leave it out, or give the"
            " address of a model's API as --base-url."
        )


def model_site(
    kind: str,
    name: str | None = None,
    url: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> Site:
    """Return a model that is not of the configuration.

    :param kind: One of the kinds that `--model` accepts.
    :param name: The name of one of the API's models.
    :param url: The address of the API.
    :param given: The options of the command line.
    """
    model = f"{kind}/{name}" if name else kind
    return _site(api_url(kind, url), None, given or {})._replace(model=model)


def _site(url: str | None, name: str | None, settings: Mapping[str, Any]) -> Site:
    clocks = {c: settings[f"timeout_{c}"] for c in CLOCKS if f"timeout_{c}" in settings}
    own = {key: settings[key] for key in ("secret_key", "password", "proxy") if key in settings}
    return Site(url, name, **own, timeouts=clocks)


def _clocks(timeouts: Mapping[str, float]) -> dict[str, float]:
    return {f"timeout_{clock}": seconds for clock, seconds in timeouts.items()}


def _environment() -> dict[str, Any]:
    return {key: os.environ[var] for key, var in _CREDENTIALS if os.environ.get(var)}


def _given(ctx: click.Context) -> dict[str, Any]:
    """Return the options that the command line gives."""
    on_line = ParameterSource.COMMANDLINE
    return {k: v for k, v in ctx.params.items() if ctx.get_parameter_source(k) is on_line}


def _several(ctx: click.Context, option: str) -> list[str]:
    value = _given(ctx).get(option) or ()
    return [value] if isinstance(value, str) else list(value)
