"""Sites and models that commands ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ._model import APIS, client_of_model
from ._named_model import NamedModel

if TYPE_CHECKING:
    from gprochat_anyio import Client, Fleet


class Site(NamedTuple):
    """A site, a fleet or a model to ask. Its `repr` shows no secret."""

    url: str | None
    """The URL of the site or the model's API. None, without a model, for the embedded site."""
    name: str | None = None
    """Its name in the configuration file."""
    secret_key: str = ""
    password: str | None = None
    proxy: str | None = None
    timeouts: Mapping[str, float] = {}
    members: tuple[Site, ...] = ()
    """The sites of a fleet, whose `url` holds all addresses."""
    model: str | None = None
    """The kind of the model, or the kind, a slash and the name of one of the API's models."""
    configured: NamedModel | None = None
    """The model of the configuration file, without the command's options."""

    def __repr__(self) -> str:
        return f"<Site {self.label}>"

    @property
    def label(self) -> str:
        """Its name for messages."""
        return label(self.name, self.model, self.url)

    @property
    def embedded(self) -> bool:
        """True if nothing is named, so that the embedded site replies."""
        return self.url is None and self.model is None

    @property
    def inside(self) -> bool:
        """True for a model in this process or a model's API, False for a site."""
        return self.embedded or self.model is not None

    @property
    def of_api(self) -> bool:
        """True for a model's API."""
        return (self.model or "").partition("/")[0] in APIS

    def with_model(self, name: str) -> Site:
        """Return the same API with another of its models."""
        kind = (self.model or "").partition("/")[0]
        if self.configured is None:
            return self._replace(model=f"{kind}/{name}")
        return self._replace(
            name=f"{self.configured.title}/{name}",
            model=f"{kind}/{name}",
            configured=self.configured._replace(name=name),
        )

    def words_of(self, error: Exception) -> str:
        """Return the message of a failure, with its notes."""
        from gprochat_anyio import AuthenticationError  # noqa: PLC0415 - as below

        # The notes are about the other sites of a fleet.
        notes: list[str] = list(getattr(error, "__notes__", ())) if self.members else []
        if self.configured is not None and isinstance(error, AuthenticationError):
            notes.append(self.configured.key_place)
        return "; ".join((str(error).removesuffix("."), *notes)) if notes else str(error)

    def client(self, **settings: Any) -> Client | Fleet:
        """Return a client or a fleet of clients, which the caller closes.

        :param settings: Further settings of `Client`.
        :raises ValueError: If a setting is invalid or missing.
        :raises ImportError: If an extra is missing.
        """
        if self.members:
            from gprochat_anyio import Fleet  # noqa: PLC0415 - as below

            return Fleet([member.own_client(**settings) for member in self.members])
        return self.own_client(**settings)

    def own_client(self, **settings: Any) -> Client:
        """Return a client. This must not be a fleet. See `client`."""
        from gprochat_anyio import Client, Timeouts  # noqa: PLC0415 - not for `--help`

        if self.configured is not None:
            return self.configured.client(self.proxy, self.timeouts, **settings)
        if self.inside:
            return client_of_model(self.model, self.url, self.proxy, self.timeouts, **settings)
        own: dict[str, Any] = {
            "url": self.url,
            "secret_key": self.secret_key,
            "password": self.password,
            "timeouts": Timeouts(**self.timeouts),
            "proxy": self.proxy,
        }
        return Client(**own | settings)


def label(name: str | None, model: str | None, url: str | None) -> str:
    """Return the name of a site or a model for messages."""
    return name or model or url or "embedded"
