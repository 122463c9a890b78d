"""`gprochat logs`: the latest turns of kept chats."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Final

import click

from ._exits import FAILED, say
from ._output import Output, PipeClosedError, json_line
from ._site import label
from ._store import LoggedTurn, Store, StoreError, store_path

_EPILOG: Final = """\b
GPROCHAT_DATA is the folder they are kept in; chat --no-log, or log = false
in the configuration file, keeps none. Exit status: 1 if it fails."""
_MANY: Final = 2**63 - 1


@click.command(epilog=_EPILOG)
@click.option("-n", "count", metavar="N", type=click.IntRange(0), default=10, help="10; 0: all.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option("--path", is_flag=True, help="Only tell the file they are in.")
@click.pass_context
def logs(ctx: click.Context, /, *, count: int, as_json: bool, path: bool) -> None:
    """List the latest turns of chats, the newest last."""
    place = store_path()
    try:
        output = Output()
        if path:
            output.write(f"{place}\n")
            return
        for turn in _latest(count or _MANY):
            output.write(json_line(turn._asdict()) if as_json else _as_text(turn))
    except PipeClosedError:
        return
    except (StoreError, OSError) as error:
        say(str(getattr(error, "strerror", None) or error))
        ctx.exit(FAILED)


def _latest(count: int) -> list[LoggedTurn]:
    place = store_path()
    if not place.exists():
        say("no chat was kept yet")
        return []
    with closing(Store(place, create=False)) as store:
        return store.latest(count)


def _as_text(turn: LoggedTurn) -> str:
    when = f"{datetime.fromtimestamp(turn.asked or 0):%Y-%m-%d %H:%M}"  # noqa: DTZ006 - local time
    end = "" if turn.complete else "  (stopped)"
    question = "".join(f"> {line}\n" for line in turn.question.splitlines())
    who = label(turn.site, turn.model, turn.url)
    return f"{when}  {who}{end}\n{question}{turn.reply.rstrip()}\n\n"
