"""`gprochat logs`: show, search, export and delete what was asked."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from textwrap import shorten
from typing import Final

import click

from ._archive import Archive, ArchivedTurn
from ._database import StoreError, store_path
from ._exit_codes import FAILED, USAGE, say
from ._help import help_option
from ._log_values import DamagedChatError
from ._options import ChatId
from ._output import Output, PipeClosedError, json_line
from ._site import label
from ._store import LoggedTurn

_EPILOG: Final = """\b
The log is one file in the folder GPROCHAT_DATA. `--no-log`, or `log = false`
in the configuration file, keeps a command out of it.
Exit status: 0; 1 if the log cannot be used or is damaged; 2 if there is no
such chat."""
_MOST: Final = 2**63 - 1  # of SQLite


@click.command(epilog=_EPILOG, short_help="Show, search and export what was asked.")
@click.option(
    "-n",
    "count",
    metavar="N",
    type=click.IntRange(0),
    help="Show the last N turns (default 10; 0 shows all).",
)
@click.option(
    "-q", "text", metavar="TEXT", help="Show only turns that contain TEXT, ignoring case."
)
@click.option(
    "--chat", metavar="ID", type=ChatId(), help="Show all turns of this chat, and no others."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each turn.")
@click.option("--markdown", is_flag=True, help="Print Markdown, with a heading for each chat.")
@click.option("--delete", metavar="ID", type=ChatId(), help="Delete this chat for good.")
@click.option("--path", is_flag=True, help="Print the path of the log, and do nothing else.")
@help_option
@click.pass_context
def logs(
    ctx: click.Context,
    /,
    *,
    count: int | None,
    text: str | None,
    chat: int | None,
    as_json: bool,
    markdown: bool,
    delete: int | None,
    path: bool,
) -> None:
    """Show the latest turns of `chat` and `ask`, the newest last, with chat IDs.

    `gprochat chat --continue ID` continues a chat.
    """
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other; give one.")
    if delete is not None and (chat is not None or text is not None):
        raise click.UsageError("--delete takes the ID of a chat; leave --chat and -q out.")
    try:
        output = Output()
        if path:
            output.write(f"{store_path()}\n")
            return
        if delete is not None:
            ctx.exit(_delete(delete))
        if count is None:
            count = 10 if chat is None else 0
        found = _turns(min(count, _MOST) or _MOST, text, chat)
        if found is None:
            ctx.exit(_no_chat(chat))
        shown = [entry for entry in found if isinstance(entry, ArchivedTurn)]
        pieces = _as_markdown(shown) if markdown else map(_as_text, shown)
        for piece in map(_as_json, shown) if as_json else pieces:
            output.write(piece)
        ctx.exit(_tell_damage(found))
    except PipeClosedError:
        return
    except (StoreError, OSError) as error:
        say(str(getattr(error, "strerror", None) or error))
        ctx.exit(FAILED)


def _turns(
    count: int, text: str | None, chat: int | None
) -> list[ArchivedTurn | DamagedChatError] | None:
    """Return the turns. None if there is no such chat."""
    place = store_path()
    if not place.exists():
        if chat is not None:
            return None
        say("nothing has been logged yet")
        return []
    with closing(Archive(place)) as archive:
        found = archive.turns(count, text=text, chat=chat)
        if chat is not None and not found and not archive.turns(1, chat=chat):
            return None
    if not found and text is not None:
        say("no turn contains this text")
    return found


def _tell_damage(entries: Iterable[ArchivedTurn | DamagedChatError]) -> int:
    """Tell what is damaged, once for each chat and column, and return the exit status."""
    damage = sorted({str(entry) for entry in entries if isinstance(entry, DamagedChatError)})
    for message in damage:
        say(message)
    return FAILED if damage else 0


def _delete(chat: int) -> int:
    """Delete a chat, after a confirmation at a terminal, and return the exit status."""
    turns = _turns(_MOST, None, chat)
    if not turns:
        return _no_chat(chat)
    count = f"{len(turns)} turn{'' if len(turns) == 1 else 's'}"
    if sys.stdin is not None and sys.stdin.isatty():
        first = turns[0]
        begins = ""
        if isinstance(first, ArchivedTurn):
            begin = shorten(first.turn.question, 40, placeholder=" ...")
            begins = f", which begins with {begin!r}"
        click.confirm(f"Delete chat {chat}, with {count}{begins}?", abort=True, err=True)
    with closing(Archive(store_path())) as archive:
        archive.delete(chat)
    say(f"deleted chat {chat}, with {count}")
    return 0


def _no_chat(chat: int | None) -> int:
    say(f"there is no chat {chat}; `gprochat logs` shows the IDs")
    return USAGE


def _as_json(entry: ArchivedTurn) -> str:
    return json_line(entry.facts)


def _as_text(entry: ArchivedTurn) -> str:
    turn = entry.turn
    head = f"{_when(turn)}  chat {entry.chat}  {_who(turn)}"
    question = "".join(f"> {line}\n" for line in turn.question.splitlines())
    return f"{'  '.join((head, *_marks(turn)))}\n{question}{turn.reply.rstrip()}\n\n"


def _as_markdown(entries: Iterable[ArchivedTurn]) -> Iterable[str]:
    """Yield the turns as Markdown, with a heading for each chat."""
    for chat, turns in groupby(sorted(entries, key=attrgetter("chat")), attrgetter("chat")):
        yield f"# Chat {chat}\n\n"
        for turn in map(attrgetter("turn"), turns):
            yield f"## {', '.join((_when(turn), _who(turn), *_marks(turn)))}\n\n"
            if turn.system:
                yield f"Instructions: {turn.system}\n\n"
            question = "".join(f"> {line}".rstrip() + "\n" for line in turn.question.splitlines())
            yield f"{question}\n{turn.reply.rstrip()}\n\n"


def _when(turn: LoggedTurn) -> str:
    if turn.asked is None:
        return "from a file"
    return f"{datetime.fromtimestamp(turn.asked):%Y-%m-%d %H:%M}"  # noqa: DTZ006 - local time


def _who(turn: LoggedTurn) -> str:
    return label(turn.site, turn.model, turn.url)


def _marks(turn: LoggedTurn) -> list[str]:
    """Return the marks of a turn."""
    marks = [] if turn.complete else ["stopped"]
    marks += [turn.dropped] if turn.dropped else []
    marks += ["from an earlier chat"] if turn.earlier and turn.asked is not None else []
    return [f"({mark})" for mark in marks]
