"""The speakers of a chat, and their clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from gprochat_anyio import Client, Fleet

from ._config import Config
from ._config_file import ConfigError
from ._inside import opened_client
from ._model import APIS, OPENAI, SINGLE
from ._site import Site
from ._sites import model_site, named_site
from ._speaker import Speaker
from ._store import LoggedTurn


class Speakers:
    """A factory of speakers, which shares a client among the speakers of a site.

    :param given: The sites that the chat started with.
    :param open_until_the_end: Closes the clients.
    """

    def __init__(
        self, config: Config, given: Sequence[Site], open_until_the_end: AsyncExitStack
    ) -> None:
        self.sites = config.names
        self.models = (*config.models, *SINGLE, f"{OPENAI}/NAME")
        self._config = config
        self._given = {site.label: site for site in given}
        self._open_until_the_end = open_until_the_end
        self._clients: dict[tuple[str | None, ...], Client | Fleet] = {}

    async def speaker(
        self, site: Site, log: Iterable[LoggedTurn] = (), system: str | None = None
    ) -> Speaker:
        """Return a speaker of a site that continues these turns.

        :raises ValueError: If a setting is invalid or missing.
        :raises ImportError: If an extra is missing.
        """
        who = (site.name, site.model, site.url)
        client = self._clients.get(who)
        if client is None:
            client = await self._open_until_the_end.enter_async_context(opened_client(site))
            self._clients[who] = client
        return Speaker(site, client, log, system)

    async def of_sites(self, names: Sequence[str], before: Sequence[Speaker]) -> list[Speaker]:
        """Return speakers of the named sites: current ones, and others with the first one's turns.

        :raises ConfigError: If the configuration does not have a name.
        """
        there = {speaker.site.label: speaker for speaker in before}
        return [
            there.get(name)
            or await self._going_on(
                self._given.get(name) or named_site(self._config, name), before[0]
            )
            for name in dict.fromkeys(names)
        ]

    async def of_model(self, name: str, before: Sequence[Speaker]) -> list[Speaker]:
        """Return the speaker of a model, with the turns of the first current one.

        :param name: A configured model, a kind, or a model of the API that is currently asked.
        :raises ConfigError: If there is no such model.
        """
        return [await self._going_on(self._model(name, before[0].site), before[0])]

    def _model(self, name: str, now: Site) -> Site:
        kind, _, of_api = name.partition("/")
        if name in self._config.models:
            return named_site(self._config, name)
        if name in SINGLE:
            return model_site(name)
        if now.of_api and name not in APIS:  # an API's own names may contain slashes
            return now.with_model(name)
        if kind in APIS and of_api:
            return model_site(kind, of_api)
        raise ConfigError(f"there is no model {name!r}; /model takes {', '.join(self.models)}")

    async def _going_on(self, site: Site, first: Speaker) -> Speaker:
        return await self.speaker(site, first.turns, first.conversation.system)
