"""The configuration file: named sites, and which of them answers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, NamedTuple, NoReturn

import click

from ._exits import USAGE, say

CLOCKS: Final = ("connect", "first_chunk", "idle", "total")
"""The keys of a site's `timeouts`."""

_TEXTS: Final = ("url", "secret_key", "password", "proxy")
_SECRETS: Final = ("secret_key", "password", "proxy")  # a proxy's URL may hold credentials
_HEADER: Final = re.compile(r"\s*\[([^\[\]]+)\]")


class ConfigError(click.ClickException):
    """The configuration can not be used; a command ends with this, and status 2."""

    exit_code = USAGE

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002 - always on stderr
        say(self.message)


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
    """What the configuration file says; all defaults if there is none."""

    sites: Mapping[str, NamedSite] = MappingProxyType({})
    fleets: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Names of sites that are asked as one."""
    default: str | None = None
    log: bool = True
    """Whether chats are kept."""
    path: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its sites and fleets."""
        return (*self.sites, *self.fleets)

    def site(self, name: str) -> NamedSite:
        """The site of that name.

        :raises ConfigError: if there is none
        """
        if name not in self.sites:
            known = ", ".join(self.names) or "it has none"
            raise ConfigError(f"{self.path} has no site {name!r} ({known}): add [sites.{name}]")
        return self.sites[name]


def config_path() -> Path:
    """Where the configuration file is, or would be."""
    if given := os.environ.get("GPROCHAT_CONFIG"):
        return Path(given)
    from platformdirs import user_config_path  # noqa: PLC0415 - 10 ms, for who needs the file

    return user_config_path("gprochat", appauthor=False) / "config.toml"


def read_config() -> Config:
    """The configuration; a warning on stderr if others can read the secrets in it.

    :raises ConfigError: that names the file and the line, if it can not be used
    """
    path = config_path()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode()
    except FileNotFoundError:
        if "GPROCHAT_CONFIG" in os.environ:
            raise ConfigError(f"GPROCHAT_CONFIG names {path}, which does not exist") from None
        return Config(path=path)
    except OSError as error:
        raise ConfigError(f"can not read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: this is no UTF-8 text") from None
    config = _File(path, text).config()
    secret = any(getattr(site, name) for site in config.sites.values() for name in _SECRETS)
    if secret and os.name == "posix" and mode & 0o077:
        say(f"others can read {path}, which holds secrets: chmod 600 it")
    return config


class _File:
    """A file's text, on its way to a `Config`."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text

    def config(self) -> Config:
        import tomllib  # noqa: PLC0415 - 10 ms

        try:
            table = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            reason, line, _ = (*re.split(r" \(at line (\d+),.*", str(error)), "", "")[:3]
            self._refuse(f"{reason[:1].lower()}{reason[1:]}", line=line)
        self._check_keys(table, ("default", "fleets", "log", "sites"), ())
        default, log = table.get("default"), table.get("log", True)
        if not isinstance(log, bool):
            self._refuse("log must be true or false", "log")
        named = table.get("sites", {})
        if not isinstance(named, dict):
            self._refuse("sites must be tables: [sites.NAME]", "sites")
        sites = {name: self._site(name, site) for name, site in named.items()}
        fleets = self._fleets(table.get("fleets", {}), sites)
        if default is not None and default not in sites and default not in fleets:
            self._refuse(
                f"default must be the name of a site; there is no [sites.{default}]", "default"
            )
        return Config(MappingProxyType(sites), MappingProxyType(fleets), default, log, self._path)

    def _fleets(self, named: object, sites: Mapping[str, NamedSite]) -> dict[str, tuple[str, ...]]:
        if not isinstance(named, dict):
            self._refuse("fleets must be tables: [fleets.NAME]", "fleets")
        return {name: self._fleet(name, fleet, sites) for name, fleet in named.items()}

    def _fleet(self, name: str, fleet: object, sites: Mapping[str, NamedSite]) -> tuple[str, ...]:
        where = ("fleets", name)
        if not isinstance(fleet, dict):
            self._refuse(f"a fleet is a table: [fleets.{name}]", *where)
        self._check_keys(fleet, ("sites",), where)
        if name in sites:
            self._refuse(f"{name} is a site already; give the fleet another name", *where)
        names = fleet.get("sites")
        if not isinstance(names, list) or not names:
            self._refuse('sites must be a list of names: ["a", "b"]', *where, "sites")
        for number, member in enumerate(names):
            if not isinstance(member, str) or member not in sites:
                self._refuse(f"there is no [sites.{member}]", *where, "sites")
            if member in names[:number]:
                self._refuse(f"{member} must be listed once", *where, "sites")
        return tuple(names)

    def _site(self, name: str, site: object) -> NamedSite:
        where = ("sites", name)
        if not isinstance(site, dict):
            self._refuse(f"a site is a table: [sites.{name}]", *where)
        self._check_keys(site, (*_TEXTS, "timeouts"), where)
        for key in _TEXTS:
            if not isinstance(site.get(key, ""), str):
                self._refuse(f"{key} must be a text in quotes", *where, key)
        if not site.get("url"):
            self._refuse(f"[sites.{name}] needs a url", *where)
        timeouts = site.get("timeouts", {})
        if not isinstance(timeouts, dict):
            self._refuse(f"timeouts must be a table: {{ {CLOCKS[0]} = 10 }}", *where, "timeouts")
        self._check_keys(timeouts, CLOCKS, (*where, "timeouts"))
        for clock, seconds in timeouts.items():
            if (
                isinstance(seconds, bool)
                or not isinstance(seconds, int | float)
                or not seconds >= 0
            ):
                self._refuse(f"{clock} must be seconds, or inf", *where, "timeouts", clock)
        return NamedSite(
            site["url"],
            site.get("secret_key", ""),
            site.get("password"),
            site.get("proxy"),
            MappingProxyType(timeouts),
        )

    def _check_keys(
        self, table: Mapping[str, object], known: tuple[str, ...], where: tuple[str, ...]
    ) -> None:
        for key in table:
            if key not in known:
                self._refuse(f"unknown key {key!r}; known are {', '.join(known)}", *where, key)

    def _refuse(self, why: str, *keys: str, line: str = "") -> NoReturn:
        line = line or self._line_of(keys)
        place = f"{self._path}, line {line}" if line else f"{self._path}"
        raise ConfigError(f"{place}: {why}") from None

    def _line_of(self, keys: tuple[str, ...]) -> str:
        """Where a key stands, or the nearest table around it; TOML's reader does not tell."""
        found, best, table = "", 0, tuple[str, ...]()
        for number, line in enumerate(self._text.splitlines(), 1):
            if header := _HEADER.match(line):
                here = table = _keys(header[1])
            else:
                here = (*table, *_keys(line.partition("=")[0]))
            if len(here) > best and here == keys[: len(here)]:
                found, best = str(number), len(here)
        return found


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip(" \t\"'") for part in dotted.split("."))
