"""A configuration file, read with errors that name the file and the line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, NoReturn

import click

from ._exit_codes import USAGE, say

CLOCKS: Final = ("connect", "first_chunk", "idle", "total")
"""The keys of `timeouts`."""

_HEADER: Final = re.compile(r"\s*\[([^\[\]]+)\]")


class ConfigError(click.ClickException):
    """Error in the configuration file. The command ends with status 2."""

    exit_code = USAGE

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002 - always on stderr
        say(self.message)


class ConfigFile:
    """The text of a configuration file, and checks of its values.

    The argument `where` of the checks is the path of keys to a table.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._text = text

    def read(self) -> dict[str, Any]:
        """Return the file's top-level table.

        :raises ConfigError: If the file is not TOML. All methods raise it for invalid values.
        """
        import tomllib  # noqa: PLC0415 - 10 ms

        try:
            return tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            reason, line, _ = (*re.split(r" \(at line (\d+),.*", str(error)), "", "")[:3]
            advice = "; texts are in quotes" if reason == "Invalid value" else ""
            self.refuse(f"{reason[:1].lower()}{reason[1:]}{advice}", line=line)
        except RecursionError:
            self.refuse("it is nested too deeply")

    def tables(self, file: Mapping[str, Any], kinds: str, kind: str) -> dict[str, dict[str, Any]]:
        """Return the tables of a kind by name.

        :param kinds: The key that holds them.
        """
        named = file.get(kinds, {})
        if not isinstance(named, dict):
            self.refuse(f"{kinds} must be tables: [{kinds}.NAME]", kinds)
        for name, table in named.items():
            if not isinstance(table, dict):
                self.refuse(f"a {kind} is a table: [{kinds}.{name}]", kinds, name)
        return named

    def check_keys(self, table: Mapping[str, object], known: tuple[str, ...], *where: str) -> None:
        """Refuse unknown keys."""
        for key in table:
            if key not in known:
                self.refuse(f"unknown key {key!r}; known are {', '.join(known)}", *where, key)

    def check_texts(self, table: Mapping[str, object], keys: tuple[str, ...], *where: str) -> None:
        """Refuse values of these keys that are not strings."""
        for key in keys:
            if not isinstance(table.get(key, ""), str):
                self.refuse(f"{key} must be a text in quotes", *where, key)

    def timeouts(self, table: Mapping[str, Any], *where: str) -> Mapping[str, float]:
        """Return the `timeouts` of a site or a model."""
        timeouts = table.get("timeouts", {})
        if not isinstance(timeouts, dict):
            self.refuse(f"timeouts must be a table: {{ {CLOCKS[0]} = 10 }}", *where, "timeouts")
        self.check_keys(timeouts, CLOCKS, *where, "timeouts")
        for clock, seconds in timeouts.items():
            if (
                isinstance(seconds, bool)
                or not isinstance(seconds, int | float)
                or not seconds >= 0
            ):
                self.refuse(f"{clock} must be seconds, or inf", *where, "timeouts", clock)
        return MappingProxyType(timeouts)

    def refuse(self, why: str, *keys: str, line: str = "") -> NoReturn:
        """Raise the error about a key.

        :param keys: The path of keys to the value.
        """
        line = line or self._line_of(keys)
        place = f"{self.path}, line {line}" if line else f"{self.path}"
        raise ConfigError(f"{place}: {why}") from None

    def _line_of(self, keys: tuple[str, ...]) -> str:
        """Return the line of a key, or of the nearest table around it. `tomllib` tells neither."""
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
