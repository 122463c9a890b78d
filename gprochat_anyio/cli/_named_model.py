"""The models of the configuration file, and their keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from ._config_file import ConfigFile
from ._model import APIS, BEHIND_A_SITE, GOOGLE, OPENAI_URL, PATIENCE, client_of_kind

if TYPE_CHECKING:
    from gprochat_anyio import Client

_TEXTS: Final = ("kind", "name", "base_url", "key_env", "api_key", "system", "proxy")

_OWN_KEYS: Final = {"https://api.openai.com": "OPENAI_API_KEY", GOOGLE: "GEMINI_API_KEY"}
"""The variables whose keys belong to a server, even if the file does not name them."""


class NamedModel(NamedTuple):
    """A model of the configuration file. Its `repr` shows no secret."""

    title: str
    """Its name in the file."""
    kind: str
    name: str | None
    """The name of the API's model. None for Gemini's default."""
    base_url: str | None
    """The address of the API. None for Google's own."""
    key_env: str | None
    """The environment variable that holds its key. None without one."""
    api_key: str | None
    system: str | None
    fields: Mapping[str, Any]
    proxy: str | None
    timeouts: Mapping[str, float]

    def __repr__(self) -> str:
        return f"<NamedModel {self.title}>"

    @property
    def label(self) -> str:
        """Its kind and its name, as `Site.model` has them."""
        return f"{self.kind}/{self.name}" if self.name else self.kind

    def key(self) -> str | None:
        """Return its key. None for a server that needs none.

        :raises ValueError: If a required key is missing.
        """
        if self.api_key:
            return self.api_key
        if self.key_env is None:
            if self.kind == "gemini":
                raise ValueError(
                    f"[models.{self.title}] has an address of its own and no key; give its"
                    " key_env or api_key"
                )
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ValueError(f"[models.{self.title}] needs its key: set {self.key_env}")
        return key

    @property
    def key_place(self) -> str:
        """A sentence about the setting that holds the key, for errors of the server."""
        if self.api_key:
            return f"the key of [models.{self.title}] is its api_key"
        if self.key_env:
            return f"the key of [models.{self.title}] is in {self.key_env}"
        return f"[models.{self.title}] has no key: give its key_env or api_key"

    def client(
        self, proxy: str | None, timeouts: Mapping[str, float], /, **settings: Any
    ) -> Client:
        """Return a client of the model.

        :param proxy: Proxy instead of the model's own.
        :param timeouts: Timeouts instead of the model's own.
        :param settings: Further settings of `Client`.
        :raises ValueError: If a setting is invalid or missing.
        """
        from gprochat_anyio import Timeouts  # noqa: PLC0415 - not for `--help`

        own = {
            "system": self.system,
            "fields": self.fields,
            "proxy": proxy,
            "timeouts": Timeouts(**PATIENCE | dict(timeouts)),
        }
        return client_of_kind(self.kind, self.name, self.base_url, self.key(), **own | settings)


def read_model(file: ConfigFile, title: str, model: Mapping[str, Any]) -> NamedModel:
    """Return a model of the configuration file.

    :raises ConfigError: If the table is invalid.
    """
    where = ("models", title)
    file.check_keys(model, (*_TEXTS, "fields", "timeouts"), *where)
    file.check_texts(model, _TEXTS, *where)
    kind, name = model.get("kind"), model.get("name")
    if title in BEHIND_A_SITE:
        file.refuse(f"{title} is a kind of --model; give the model another name", *where)
    if kind == "gprochat":
        file.refuse("a GPROChat site belongs in a table [sites.NAME]", *where, "kind")
    if kind not in APIS:
        file.refuse('kind must be "openai" or "gemini"', *where, "kind")
    if kind == "openai" and not name:
        file.refuse(f"[models.{title}] needs a name, one of the server's models", *where)
    if model.get("key_env") and model.get("api_key"):
        file.refuse("give key_env or api_key, not both", *where, "api_key")
    fields = model.get("fields", {})
    if not isinstance(fields, dict):
        file.refuse("fields must be a table: { temperature = 0 }", *where, "fields")
    url = model.get("base_url") or (OPENAI_URL if kind == "openai" else None)
    return NamedModel(
        title,
        kind,
        name or None,
        url,
        model.get("key_env") or _OWN_KEYS.get(_origin(url or GOOGLE)),
        model.get("api_key") or None,
        model.get("system") or None,
        MappingProxyType(fields),
        model.get("proxy"),
        file.timeouts(model, *where),
    )


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # the client says what is wrong
        return ""
    return f"{parts.scheme}://{parts.netloc.lower()}"
