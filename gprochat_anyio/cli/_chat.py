"""`gprochat chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager, nullcontext
from functools import partial
from itertools import zip_longest
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from ._config import Config, read_config
from ._exits import FAILED, USAGE, say
from ._output import Output, PipeClosedError
from ._sites import Site, chosen_sites, kept_site, named_site, site_option
from ._store import Kept, Store, StoreError, Turn, store_path

if TYPE_CHECKING:
    from ._speaker import Speaker

_HISTORY: Final = 1000
_EPILOG: Final = """\b
As for ask: --timeout-connect, --timeout-first-chunk, --timeout-idle,
--timeout-total. Exit status: at a terminal 0, or 130 for Ctrl-C; from a pipe
as with ask, by the last question."""

_seconds = partial(click.option, metavar="SECONDS", type=float, hidden=True)


@click.command(epilog=_EPILOG)
@site_option(multiple=True)
@click.option("--url", multiple=True, help="A site; or set GPROCHAT_URL.  Several: all answer.")
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
                say("no chat was kept; this is a new one")
            if last and not options["site"] and not options["url"]:
                sites = [kept_site(ctx, config, part.site, part.url) for part in last]
            else:
                sites = chosen_sites(ctx, config) or [Site(None)]
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
        self._embedded: tuple[str, str] | None = None

    async def run(self, store: Store | None, history: Sequence[str]) -> int:
        """The exit status, once the person has left.

        :raises Exception: bare, whatever ends it
        """
        failure: Exception | None = None
        status = FAILED
        async with anyio.create_task_group() as self._tasks:
            try:
                async with AsyncExitStack() as self._clients:
                    status = await self._talk(store, history)
            except Exception as error:  # noqa: BLE001 - the task group would wrap it
                failure = error
            self._tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return status

    async def _talk(self, store: Store | None, history: Sequence[str]) -> int:
        try:
            from ._answers import Interrupts  # noqa: PLC0415 - 150 ms with what they need
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
        commands = Commands(
            speakers, sites=list(self._config.sites), open_speakers=self._open, tell=tell
        )
        repl = Repl(
            Editor(history, COMMANDS) if interactive else Lines(),
            commands,
            output,
            None if self._plain else console_of(output),
            store,
            interactive=interactive,
        )
        if not interactive:
            return await repl.run(Interrupts())
        if self._last:
            await repl.show_last_turns()
        else:
            tell("/help shows the commands, Ctrl-D leaves")
        with Interrupts() as interrupts:
            return await repl.run(interrupts)

    async def _open(self, names: Sequence[str], before: Sequence[Speaker]) -> list[Speaker]:
        """For `/site`: who is there already goes on; others begin with what the first one has."""
        there = {speaker.site.name: speaker for speaker in before}
        first = before[0]
        return [
            there.get(name)
            or await self._speaker(
                named_site(self._config, name), first.turns, first.conversation.system
            )
            for name in names
        ]

    async def _speaker(self, site: Site, turns: Iterable[Turn], system: str | None) -> Speaker:
        from ._speaker import Speaker  # noqa: PLC0415

        settings: dict[str, Any] = {}
        if site.url is None:
            url, key = await self._embedded_site()
            settings = {"url": url, "secret_key": key, "password": None, "trust_env": False}
        client = await self._clients.enter_async_context(site.client(**settings))
        return Speaker(site, client, turns, system)

    async def _embedded_site(self) -> tuple[str, str]:
        if self._embedded is None:
            from gprochat_anyio.site import serve  # noqa: PLC0415 - 100 ms

            key = token_urlsafe()  # others on this machine have no business here
            self._embedded = await self._tasks.start(partial(serve, secret_key=key)), key
            say("no site was named: the embedded one answers, offline")
        return self._embedded
