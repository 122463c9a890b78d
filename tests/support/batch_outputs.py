"""Lines and outputs of a batch, as it writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gprochat_anyio._request.reply import Reply, Timing
from gprochat_anyio.batch._journal import Journal
from gprochat_anyio.batch._records import line_of_error, line_of_reply, record_of_item

SITE = "http://site.test"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


def ours(number: int = 0, *, failed: bool = False, again: bool = False) -> bytes:
    """Return a line as a batch writes it.

    :param again: Whether the line replaces a failure's.
    """
    made = record_of_item(f"prompt {number}", site=SITE, index=number)
    made.replaces = made.key if again else None
    if failed:
        return line_of_error(made, OSError("broken"))
    return line_of_reply(made, Reply("text", Timing(0, 0, 0, 1, 4, 1)))


def opened(path: Path) -> Journal:
    journal = Journal(path, sync_every=1)
    journal.open()
    return journal
