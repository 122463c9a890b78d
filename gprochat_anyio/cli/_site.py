"""A site to ask, or a model with no site, as the commands know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ._model import client_of_model
from ._named_model import NamedModel

if TYPE_CHECKING:
    from gprochat_anyio import Client, Fleet


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
    """The kind of a model, and after a slash the name of one of its API's."""
    configured: NamedModel | None = None
    """The model of the configuration file that this is, but for options."""

    def __repr__(self) -> str:
        return f"<Site {self.label}>"

    @property
    def label(self) -> str:
        """What a person calls it."""
        return label(self.name, self.model, self.url)

    @property
    def embedded(self) -> bool:
        """True if nothing is named, so that the offline model answers."""
        return self.url is None and self.model is None

    @property
    def inside(self) -> bool:
        """True if no site is asked: a model in this process, or the API of one."""
        return self.embedded or self.model is not None

    def words_of(self, error: Exception) -> str:
        """Return what to say of a failure."""
        from gprochat_anyio import AuthenticationError  # noqa: PLC0415 - as below

        notes: list[str] = (
            list(getattr(error, "__notes__", ())) if self.members else []
        )  # of the other sites
        if self.configured is not None and isinstance(error, AuthenticationError):
            notes.append(self.configured.key_place)
        return "; ".join((str(error).removesuffix("."), *notes)) if notes else str(error)

    def client(self, **settings: Any) -> Client | Fleet:
        """A client of it, or a fleet of clients, which the caller closes.

        :param settings: of `Client`, besides
        :raises ValueError: for a setting that can not be
        :raises ImportError: Without an extra that it needs.
        """
        if self.members:
            from gprochat_anyio import Fleet  # noqa: PLC0415 - as below

            return Fleet([member.own_client(**settings) for member in self.members])
        return self.own_client(**settings)

    def own_client(self, **settings: Any) -> Client:
        """Return a client of it, which is no fleet; see `client`."""
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
    """What a person calls who answers."""
    return name or model or url or "embedded"
