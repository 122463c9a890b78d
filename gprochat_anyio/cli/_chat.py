"""`gprochat chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager, nullcontext
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from ._config import Config, read_config
from ._exits import FAILED, USAGE, say
from ._inside import opened_client
from ._options import model_name_option, model_option, site_option
from ._output import Output, PipeClosedError
from ._site import Site
from ._sites import chosen_sites, embedded_site, kept_site, named_site
from ._store import Kept, LoggedTurn, Store, StoreError, store_path

if TYPE_CHECKING:
    from gprochat_anyio import Client, Fleet

    from ._speaker import Speaker

_HISTORY: Final = 1000
_EPILOG: Final = """\b
As for ask: --timeout-connect, --timeout-first-chunk, --timeout-idle,
--timeout-total. Exit status: at a terminal 0, or 130 for Ctrl-C; from a pipe
as with ask, by the last question."""

_seconds = partial(click.option, metavar="SECONDS", type=float, hidden=True)


@click.command(epilog=_EPILOG, short_help="Chat in the terminal.")
@site_option(multiple=True)
@click.option(
    "--url",
    "--base-url",
    "url",
    metavar="URL",
    multiple=True,
    help="A site; or set GPROCHAT_URL.  Several: all answer.",
)
@model_option()
@model_name_option
@click.option("--secret-key", metavar="KEY", help="Of --url; or set GPROCHAT_SECRET_KEY.")
@click.option("--password", metavar="WORD", help="Of --url; or set GPROCHAT_PASSWORD.")
@click.option("--proxy", metavar="URL", help="http://, https:// or socks5://")
@_seconds("--timeout-connect")
@_seconds("--timeout-first-chunk")
@_seconds("--timeout-idle")
@_seconds("--timeout-total")
@click.option("--system", metavar="TEXT", help="Instructions for the site.")
@click.option("--continue", "go_on", is_flag=True, help="Go on with the chat that was the last.")
@click.option("--no-log", is_flag=True, help="Do not keep this chat; `gprochat logs` has the rest.")
@click.option("--plain", is_flag=True, help="The replies as they are, no Markdown.")
@click.help_option("--help", hidden=True)  # whoever sees the screen that this fills knows it
@click.pass_context
def chat(ctx: click.Context, /, *, system: str | None, go_on: bool, **options: Any) -> None:
    """Chat in the terminal; /help there tells the commands.

    From a pipe, each line of stdin is a question. If no site is named, the
    embedded one answers, offline.
    """
    config = read_config()
    keep = config.log and not options["no_log"]
    status = FAILED
    try:
        with _kept_chats(needed=keep or (go_on and store_path().exists())) as store:
            last = store.last() if go_on and store is not None else []
            if go_on and not last:
                say("there is no chat to go on with; this is a new one")
            if last and not any(options[name] for name in ("site", "url", "model", "model_name")):
                sites = [kept_site(ctx, config, part.site, part.url, part.model) for part in last]
            else:
                sites = chosen_sites(ctx, config) or [embedded_site(ctx)]
            chat = _Chat(config, sites, last, system, plain=options["plain"])
            history = [] if store is None else [t.question for t in store.latest(_HISTORY)]
            run = partial(chat.run, store if keep else None, history)
            status = anyio.run(run)  # on asyncio, as prompt_toolkit needs it
    except PipeClosedError:
        status = 0
    except ValueError as error:
        say(str(error))
        status = USAGE
    except (ImportError, OSError, StoreError) as error:
        say(getattr(error, "strerror", None) or str(error))
    ctx.exit(status)


@contextmanager
def _kept_chats(*, needed: bool) -> Iterator[Store | None]:
    """The store; None if it is not needed, or can not be used."""
    try:
        store = Store(store_path()) if needed else None
    except StoreError as error:
        say(f"this chat is not kept: {error}")
        store = None
    with nullcontext() if store is None else closing(store):
        yield store


class _Chat:
    """Everything that is open during a chat.

    :param sites: that answer
    :param last: what they go on with
    :param system: in the place of what the last chat had
    """

    def __init__(
        self,
        config: Config,
        sites: Sequence[Site],
        last: Sequence[Kept],
        system: str | None,
        *,
        plain: bool,
    ) -> None:
        self._config = config
        self._sites = sites
        self._last = last
        self._system = system
        self._plain = plain
        self._clients: dict[tuple[str | None, ...], Client | Fleet] = {}

    async def run(self, store: Store | None, history: Sequence[str]) -> int:
        """The exit status, once the person has left.

        :raises Exception: bare, whatever ends it
        """
        async with AsyncExitStack() as self._open_until_the_end:
            return await self._talk(store, history)

    async def _talk(self, store: Store | None, history: Sequence[str]) -> int:
        try:
            from ._answering import Interrupts  # noqa: PLC0415 - 150 ms with what they need
            from ._commands import COMMANDS, Commands  # noqa: PLC0415
            from ._editor import Editor, Lines  # noqa: PLC0415
            from ._repl import Repl, tell  # noqa: PLC0415
            from ._views import console_of  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ImportError(
                f"chat needs {error.name}; pip install 'gprochat-anyio[cli]'"
            ) from None
        output = Output()
        interactive = output.terminal and sys.stdin is not None and sys.stdin.isatty()
        speakers = []
        for site, part in zip_longest(self._sites, self._last[: len(self._sites)]):
            before = part or (self._last[0] if self._last else Kept(None, None, None, ()))
            system = before.system if self._system is None else self._system
            speakers.append(await self._speaker(site, before.turns, system))
        sites = list(self._config.names)
        commands = Commands(speakers, sites=sites, open_speakers=self._open, tell=tell)
        arguments = {name: command.argument for name, command in COMMANDS.items()}
        repl = Repl(
            Editor(history, arguments, sites) if interactive else Lines(),
            commands,
            output,
            None if self._plain else console_of(output),
            store,
            interactive=interactive,
        )
        if not interactive:
            return await repl.run(Interrupts())
        tell("/help shows the commands, Ctrl-D leaves")
        if self._last:
            await repl.show_last_turns()
        with Interrupts() as interrupts:
            return await repl.run(interrupts)

    async def _open(self, names: Sequence[str], before: Sequence[Speaker]) -> list[Speaker]:
        """For `/site`: who is there already goes on; others begin with what the first one has."""
        there = {speaker.site.label: speaker for speaker in before}
        known = {site.label: site for site in self._sites}
        first = before[0]
        return [
            there.get(name)
            or await self._speaker(
                known.get(name) or named_site(self._config, name),
                first.turns,
                first.conversation.system,
            )
            for name in dict.fromkeys(names)
        ]

    async def _speaker(
        self, site: Site, turns: Iterable[LoggedTurn], system: str | None
    ) -> Speaker:
        from ._speaker import Speaker  # noqa: PLC0415

        who = (site.name, site.model, site.url)
        client = self._clients.get(who)
        if client is None:
            client = await self._open_until_the_end.enter_async_context(opened_client(site))
            self._clients[who] = client
        return Speaker(site, client, turns, system)
