"""The configuration: named sites, models and fleets, and the default among them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ._config_file import ConfigError, ConfigFile
from ._exit_codes import say
from ._named_model import NamedModel, read_model

_TEXTS: Final = ("url", "secret_key", "password", "proxy")
_SECRETS: Final = ("secret_key", "password", "proxy")  # a proxy's URL may hold credentials
_SECRETS_OF_MODELS: Final = ("api_key", "proxy")


class NamedSite(NamedTuple):
    """A site of the configuration file. Its `repr` shows no secret."""

    url: str
    secret_key: str
    password: str | None
    proxy: str | None
    timeouts: Mapping[str, float]

    def __repr__(self) -> str:
        return f"<NamedSite {self.url}>"


class Config(NamedTuple):
    """The settings of the configuration file; all defaults if there is none."""

    sites: Mapping[str, NamedSite] = MappingProxyType({})
    fleets: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """The names of each fleet's sites and models."""
    models: Mapping[str, NamedModel] = MappingProxyType({})
    default: str | None = None
    log: bool = True
    """True to keep chats and prompts in the log."""
    path: Path | None = None

    exists: bool = True
    """False if there is no configuration file."""

    @property
    def to_be_made(self) -> str:
        """The words after its path if the file does not exist, else empty."""
        return "" if self.exists else ", which does not exist yet"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its sites, fleets and models."""
        return (*self.sites, *self.fleets, *self.models)

    def site(self, name: str) -> NamedSite:
        """Return the site with this name.

        :raises ConfigError: If there is none.
        """
        if name in self.sites:
            return self.sites[name]
        if not self.exists:
            raise ConfigError(
                f"no site {name!r}: the configuration file {self.path} does not exist yet; create"
                f" it with [sites.{name}] and a url, or give --url"
            )
        known = f", only {', '.join(self.names)}" if self.names else ""
        raise ConfigError(f"{self.path} has no site {name!r}{known}; add [sites.{name}]")

    def model(self, name: str, kinds: tuple[str, ...]) -> NamedModel:
        """Return the model with this name.

        :param kinds: The kinds that `--model` accepts too, for the error message.
        :raises ConfigError: If there is none.
        """
        if name in self.models:
            return self.models[name]
        if name in self.names:
            kind = "site" if name in self.sites else "fleet"
            raise ConfigError(f"--model: {name} is not a model but a {kind} of {self.path}")
        if self.exists:
            advice = f"which has {', '.join(self.models) or 'none'}; add"
        else:
            advice = "which does not exist yet; create it with"
        raise ConfigError(
            f"--model: {name!r} is not one of {', '.join(kinds)}, nor a model of {self.path},"
            f" {advice} [models.{name}]"
        )


def config_path() -> Path:
    """Return the path of the configuration file, which need not exist."""
    if given := os.environ.get("GPROCHAT_CONFIG"):
        return Path(given)
    from platformdirs import user_config_path  # noqa: PLC0415 - 10 ms

    return user_config_path("gprochat", appauthor=False) / "config.toml"


def read_config() -> Config:
    """Return the configuration. Warn on stderr if other users can read its secrets.

    :raises ConfigError: If it cannot be used. The message names the file and the line.
    """
    path = config_path()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode()
    except FileNotFoundError:
        if os.environ.get("GPROCHAT_CONFIG"):
            raise ConfigError(
                f"GPROCHAT_CONFIG names {path}, which does not exist; create it, or unset"
                " GPROCHAT_CONFIG to use the default file"
            ) from None
        return Config(path=path, exists=False)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: this is not UTF-8 text") from None
    config = _config_in(ConfigFile(path, text))
    if _has_secrets(config) and os.name == "posix" and mode & 0o077:
        say(f"other users can read {path}, which holds secrets; run chmod 600 on it")
    return config


def _has_secrets(config: Config) -> bool:
    secrets = (getattr(s, name) for s in config.sites.values() for name in _SECRETS)
    more = (getattr(m, name) for m in config.models.values() for name in _SECRETS_OF_MODELS)
    return any(secrets) or any(more)


def _config_in(file: ConfigFile) -> Config:
    table = file.read()
    file.check_keys(table, ("default", "fleets", "log", "models", "sites"))
    default, log = table.get("default"), table.get("log", True)
    if not isinstance(log, bool):
        file.refuse("log must be true or false", "log")
    sites = {n: _site(file, n, site) for n, site in file.tables(table, "sites", "site").items()}
    models = {n: read_model(file, n, m) for n, m in file.tables(table, "models", "model").items()}
    for name in models:
        if name in sites:
            file.refuse(f"{name} is a site already; give the model another name", "models", name)
    fleets = {
        name: _fleet(file, name, fleet, sites, models)
        for name, fleet in file.tables(table, "fleets", "fleet").items()
    }
    if default is not None and default not in [*sites, *fleets, *models]:
        kinds = f"no [sites.{default}], [fleets.{default}] or [models.{default}]"
        file.refuse(
            f"default must be the name of a site, a fleet or a model; there is {kinds}", "default"
        )
    return Config(
        MappingProxyType(sites),
        MappingProxyType(fleets),
        MappingProxyType(models),
        default,
        log,
        file.path,
    )


def _fleet(
    file: ConfigFile,
    name: str,
    fleet: Mapping[str, Any],
    sites: Mapping[str, NamedSite],
    models: Mapping[str, NamedModel],
) -> tuple[str, ...]:
    where = ("fleets", name)
    file.check_keys(fleet, ("sites",), *where)
    if name in sites or name in models:
        kind = "site" if name in sites else "model"
        file.refuse(f"{name} is a {kind} already; give the fleet another name", *where)
    names = fleet.get("sites")
    if not isinstance(names, list) or not names:
        file.refuse('sites must be a list of names: ["a", "b"]', *where, "sites")
    for number, member in enumerate(names):
        if not isinstance(member, str) or (member not in sites and member not in models):
            file.refuse(f"there is no [sites.{member}], and no [models.{member}]", *where, "sites")
        if member in names[:number]:
            file.refuse(f"{member} must be listed once", *where, "sites")
    return tuple(names)


def _site(file: ConfigFile, name: str, site: Mapping[str, Any]) -> NamedSite:
    where = ("sites", name)
    file.check_keys(site, (*_TEXTS, "timeouts"), *where)
    file.check_texts(site, _TEXTS, *where)
    if not site.get("url"):
        file.refuse(f"[sites.{name}] needs a url", *where)
    return NamedSite(
        site["url"],
        site.get("secret_key", ""),
        site.get("password"),
        site.get("proxy"),
        file.timeouts(site, *where),
    )
