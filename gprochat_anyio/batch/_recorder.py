"""Recording of outcomes: a line in the journal, and a count in the tally."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from gprochat_anyio import GPROChatError, InvalidPromptError, Reply

from ._failure_streak import FailureStreak, was_never_asked
from ._journal import Journal
from ._records import Record, line_of_error, line_of_reply
from ._run_options import RunOptions
from ._summary import Tally


class Recorder:
    """Recorder of each prompt's outcome, in the journal and in the tally.

    It holds back failures of requests that the site has not read, until the site is known to
    work. If the run is given up instead, they are not recorded, and the next run asks these
    prompts again.

    :param on_bad_line: Called with the number of each invalid line, and the reason.
    """

    def __init__(
        self,
        journal: Journal,
        tally: Tally,
        on_bad_line: Callable[[int, str], object] | None,
        options: RunOptions,
    ) -> None:
        self._journal = journal
        self._tally = tally
        self._on_bad_line = on_bad_line
        self._options = options
        self._streak = FailureStreak(options.give_up_after)
        self._held_back: list[tuple[Record, GPROChatError]] = []
        self.given_up = anyio.Event()
        """Set once too many consecutive requests have failed."""

    @property
    def held_back(self) -> int:
        """Number of failures that are held back."""
        return len(self._held_back)

    def is_done(self, record: Record) -> bool:
        """Return True, and count the prompt, if the output already has its line."""
        sites = self._tally.other_sites if self._options.any_site else ()
        for key in (record.key, *map(record.key_at, sites)):
            if self._journal.answered.take(key):
                self._tally.answered_before += 1
                return True
            if self._journal.failed.take(key):
                if self._options.retry_failed:
                    record.replaces = key
                    return False
                self._tally.failed_before += 1
                return True
        return False

    def record_reply(self, record: Record, reply: Reply) -> None:
        """Record a reply."""
        self._streak.end()
        self.record_held_back()
        self._tally.count_reply(reply.timing)
        self._journal.put(line_of_reply(record, reply), replaces=record.replaces)

    def record_failure(self, record: Record, error: GPROChatError) -> None:
        """Record a failure, or hold it back."""
        self._streak.add(error)
        self._tally.last_error = f"{type(error).__name__}: {error}"
        if self._streak.length == 0:
            self.record_held_back()
        if self._options.give_up_after is not None and was_never_asked(error):
            self._held_back.append((record, error))
        else:
            self._put_failure(record, error)
        if self._streak.is_too_long and self._tally.gave_up is None:
            self._tally.gave_up = (
                f"{self._streak.length} prompts in a row got no reply, "
                f"the last one because of {self._tally.last_error}"
            )
            self.given_up.set()

    def record_bad(self, record: Record, error: InvalidPromptError) -> None:
        """Record an invalid prompt or line."""
        self._tally.last_error = f"{type(error).__name__}: {error}"
        self._put_failure(record, error)
        if self._on_bad_line is not None and record.line is not None:
            self._on_bad_line(record.line, str(error))

    def record_held_back(self) -> None:
        """Record the failures that were held back."""
        while self._held_back:
            self._put_failure(*self._held_back.pop(0))

    def _put_failure(self, record: Record, error: GPROChatError) -> None:
        self._tally.count_failure(error)
        self._journal.put(line_of_error(record, error), replaces=record.replaces)
