"""`gprochat chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager, nullcontext
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import anyio
import click

from ._config import Config, read_config
from ._database import StoreError, store_path
from ._exit_codes import FAILED, USAGE, say
from ._options import (
    ChatId,
    base_url_option,
    hidden_help_option,
    hidden_proxy_option,
    model_name_option,
    model_option,
    password_option,
    secret_key_option,
    site_option,
    timeout_options,
    url_option,
)
from ._output import Output, PipeClosedError
from ._site import Site
from ._sites import chosen_sites, embedded_site, kept_site
from ._store import Kept, Store

_HISTORY: Final = 1000
_LAST: Final = 0
_EPILOG: Final = """\b
Also: --proxy URL, and limits in SECONDS: --timeout-connect,
--timeout-first-chunk, --timeout-idle, --timeout-total.
Exit status: 0, or 130 for Ctrl-C; from a pipe as with ask, by the last line."""


@click.command(epilog=_EPILOG, short_help="Chat in the terminal.")
@site_option(multiple=True)
@url_option("Ask this site (or set GPROCHAT_URL). Repeatable.", multiple=True)
@model_option()
@model_name_option
@base_url_option
@secret_key_option
@password_option
@hidden_proxy_option
@timeout_options
@click.option("--system", metavar="TEXT", help="Instructions for the model, with each question.")
@click.option(
    "--continue",
    "go_on",
    metavar="[ID]",
    type=ChatId(),
    is_flag=False,
    flag_value=_LAST,
    help="Continue the last chat, or the one with this ID.",
)
@click.option("--no-log", is_flag=True, help="Do not keep this chat in the log.")
@click.option("--plain", is_flag=True, help="Show replies as plain text, not as Markdown.")
@hidden_help_option
@click.pass_context
def chat(
    ctx: click.Context, /, *, system: str | None, go_on: int | None, plain: bool, **options: Any
) -> None:
    """Chat in the terminal. Type /help there to list the commands.

    From a pipe, each line is a question. Without a site, an offline one replies.
    """
    config = read_config()
    keep = config.log and not options["no_log"]
    status = FAILED
    try:
        with _kept_chats(keep=keep, continued=go_on is not None) as store:
            before = _before(store, go_on)
            others = any(options[name] for name in ("site", "url", "model", "model_name"))
            if before and not others:
                sites = [kept_site(ctx, config, part.site, part.url, part.model) for part in before]
            else:
                sites = chosen_sites(ctx, config) or [embedded_site(ctx)]
            beginning = _Beginning(config, sites, before, system, anew=others)
            talking = _Chat(beginning, store if keep else None, plain=plain)
            # On asyncio, as prompt_toolkit needs it.
            status = anyio.run(talking.run, _history(store))
    except PipeClosedError:
        status = 0
    except ValueError as error:
        say(str(error))
        status = USAGE
    except (ImportError, OSError, StoreError) as error:
        say(getattr(error, "strerror", None) or str(error))
    ctx.exit(status)


@contextmanager
def _kept_chats(*, keep: bool, continued: bool) -> Iterator[Store | None]:
    """Open the store. Yield None if it is not needed or cannot be used."""
    place = store_path()
    try:
        needed = keep or (continued and place.exists())
        store = Store(place, create=keep) if needed else None
    except StoreError as error:
        say(f"this chat is not logged: {error}")
        store = None
    with nullcontext() if store is None else closing(store):
        yield store


def _before(store: Store | None, go_on: int | None) -> list[Kept]:
    """Return the chat to continue.

    :raises ValueError: If no chat has this ID.
    """
    if go_on is None:
        return []
    if go_on == _LAST:
        last = [] if store is None else store.last()
        if not last:
            say("there is no chat to continue; this is a new one")
        return last
    kept = [] if store is None else store.resume(go_on)
    if not kept:
        raise ValueError(f"there is no chat {go_on}; `gprochat logs` shows the IDs")
    return kept


def _history(store: Store | None) -> list[str]:
    """Return earlier questions, for the line editor. A chat can do without them."""
    try:
        return [] if store is None else store.questions(_HISTORY)
    except StoreError as error:
        say(f"earlier questions cannot be recalled: {error}")
        return []


class _Beginning(NamedTuple):
    """The start of a chat."""

    config: Config
    sites: Sequence[Site]
    before: Sequence[Kept]
    """The chat that it continues."""
    system: str | None
    """Instructions that replace earlier ones."""
    anew: bool
    """True if other sites continue an earlier chat, as a new one."""


class _Chat:
    """A chat from its start until the user leaves.

    :param store: Logs the chat. None for no log.
    """

    def __init__(self, beginning: _Beginning, store: Store | None, *, plain: bool) -> None:
        self._beginning = beginning
        self._store = store
        self._plain = plain

    async def run(self, history: Sequence[str]) -> int:
        """Run the chat, and return the exit status. The clients are closed then.

        :raises Exception: As the parts of the chat, not in a group.
        """
        async with AsyncExitStack() as stack:
            return await self._talk(stack, history)

    async def _talk(self, stack: AsyncExitStack, history: Sequence[str]) -> int:
        try:
            from ._answering import Interrupts  # noqa: PLC0415 - 150 ms with what they need
            from ._commands import COMMANDS, Commands  # noqa: PLC0415
            from ._editor import Editor, Lines  # noqa: PLC0415
            from ._repl import Repl, tell  # noqa: PLC0415
            from ._speakers import Speakers  # noqa: PLC0415
            from ._views import console_of  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ImportError(
                f"chat needs {error.name}; pip install 'gprochat-anyio[cli]'"
            ) from None
        output = Output()
        interactive = output.terminal and sys.stdin is not None and sys.stdin.isatty()
        config, sites, before, given_system, anew = self._beginning
        source = Speakers(config, sites, stack)
        speakers = []
        for site, part in zip_longest(sites, before[: len(sites)]):
            own = part or (before[0] if before else Kept(None, None, None, ()))
            system = own.system if given_system is None else given_system
            speakers.append(await source.speaker(site, own.turns, system))
        store = self._store
        if before and anew:
            for speaker in speakers:
                speaker.begin()
            if store is not None:
                store.begin()
        commands = Commands(
            speakers,
            source=source,
            tell=tell,
            begin=_nothing if store is None else store.begin,
            draw=output.draw if interactive else None,
        )
        arguments = {name: command.argument for name, command in COMMANDS.items()}
        repl = Repl(
            Editor(history, arguments, source.sites, source.models) if interactive else Lines(),
            commands,
            output,
            None if self._plain else console_of(output),
            store,
            interactive=interactive,
        )
        if not interactive:
            return await repl.run(Interrupts())
        tell("/help shows the commands, Ctrl-D leaves")
        if before:
            await repl.show_last_turns()
        with Interrupts() as interrupts:
            status = await repl.run(interrupts)
        if store is not None and store.chat is not None:
            tell(f"to continue this chat: gprochat chat --continue {store.chat}")
        return status


def _nothing() -> None:
    """Do nothing. A chat without a log starts no new one there."""
