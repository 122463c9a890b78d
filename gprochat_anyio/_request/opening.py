"""The opening phase of a request: everything up to its first text, in the caller's own task."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from gprochat_anyio._errors import (
    EmptyReplyError,
    GPROChatError,
    ReplyInterruptedError,
    SiteConnectionError,
    SiteError,
)
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._settings import Retry, Timeouts
from gprochat_anyio._wire.error_responses import (
    ERROR_BODY_LIMIT,
    check_head,
    check_reply_head,
    read_error,
)
from gprochat_anyio._wire.text_decoder import ReplyDecoder
from gprochat_anyio.transport._failures import TransportFailure
from gprochat_anyio.transport._stages import Stage

from .deadlines import Clocks
from .incoming import LiveReply
from .observers import Watch
from .sender import Answer, Sender, error_of

_SAID_BY_THE_HEAD = frozenset({429, 502, 503, 504})
"""Statuses that mean what they say, with a `Retry-After`; of others the body tells the reason."""


class Attempt:
    """One attempt to get an answer, and what it cost."""

    __slots__ = ("_clocks", "_connect_since", "_watch", "connect", "sent_at")

    def __init__(self, clocks: Clocks, watch: Watch | None = None) -> None:
        self._clocks = clocks
        self._watch = watch
        self._connect_since: float | None = None
        self.connect = 0.0
        """Seconds that the connection took; 0.0 if it was there already."""
        self.sent_at: float | None = None
        """When the first byte was sent, by the event loop's clock."""

    def on_stage(self, stage: Stage) -> None:
        """Start the clock of a stage: `connect`, or `first_chunk` once at the first byte sent."""
        if stage == "connect":
            self._connect_since = self._clocks.start("connect")
            self.sent_at = None  # a foreign transport only now says that it has to connect first
        elif self.sent_at is None:
            self.sent_at = self._clocks.start("first_chunk")
            if self._connect_since is not None:
                self.connect = self.sent_at - self._connect_since
                if self._watch is not None:
                    self._watch.connected(self.connect)

    async def ask(
        self,
        sender: Sender,
        path: str,
        body: bytes,
        check: Callable[[Answer], SiteError | None],
        *,
        fresh: bool,
    ) -> Answer:
        """Send the request, and check the head of its answer.

        :param check: tells what is wrong with a head
        :raises GPROChatError: if no good answer comes
        """
        try:
            answer = await sender.send(path, body, self.on_stage, fresh=fresh)
        except TransportFailure as failure:
            error = error_of(failure)
        else:
            try:
                if self._watch is not None and self._connect_since is None:
                    self._watch.connected(None)
                refused = check(answer)
                if refused is None and answer.status == 200:
                    return answer
                body_shown = b"" if refused is not None else await _read_reason(answer)
            except BaseException:
                await answer.aclose()
                raise
            error = refused or read_error(answer.status, answer.headers, body_shown)
            await answer.aclose()
        raise error


async def open_reply(
    sender: Sender,
    path: str,
    sign: Callable[[], bytes],
    *,
    timeouts: Timeouts,
    retry: Retry,
    decoder: Callable[[], ReplyDecoder],
    watch: Watch | None = None,
) -> LiveReply:
    """Get the first text of a reply, trying again where `retry` has it.

    Spawns no task. Cancelled, it closes the connection before it returns.

    :param path: below the site's own
    :param sign: makes the body of an attempt, freshly signed
    :param decoder: makes what decodes the answer to an attempt
    :param watch: is told what happens on the way there
    :raises GPROChatError: the error of the last attempt, with nothing of the network's in its chain
    """
    clocks = Clocks(timeouts, anyio.current_time())
    number = 0
    while True:
        number += 1
        attempt = Attempt(clocks, watch)
        error: GPROChatError | None = None
        with clocks.enforced():
            try:
                answer = await attempt.ask(sender, path, sign(), _check_reply, fresh=number > 1)
                return await _first_text(LiveReply(answer, clocks, decoder()), attempt, number)
            except GPROChatError as failed:
                error = failed
        error = error or clocks.timeout_error()
        stale = isinstance(error, SiteConnectionError) and error.stale
        pause = 0.0 if stale else retry.wait(number, error)
        if (
            number >= retry.attempts
            or not retry.covers(error)
            or anyio.current_time() + pause >= clocks.ends
        ):
            raise strip_traceback(error)
        if watch is not None:
            watch.retrying(number, error, pause)
        await anyio.sleep(pause)


async def ask_once(
    sender: Sender, path: str, body: bytes, *, timeouts: Timeouts, limit: int
) -> bytes:
    """Send a request without retries, and read its whole answer.

    :param limit: how many bytes the answer may have
    :raises GPROChatError: if there is no good answer
    """
    clocks = Clocks(timeouts, anyio.current_time())
    error: GPROChatError | None = None
    with clocks.enforced():
        try:
            answer = await Attempt(clocks).ask(sender, path, body, _check, fresh=False)
            try:
                return await _read_some(answer, limit)
            finally:
                await answer.aclose()
        except GPROChatError as failed:
            error = failed
    raise strip_traceback(error or clocks.timeout_error())


def _check(answer: Answer) -> SiteError | None:
    return check_head(answer.status, answer.headers)


def _check_reply(answer: Answer) -> SiteError | None:
    return check_reply_head(answer.status, answer.headers, framed=answer.framed)


async def _first_text(reply: LiveReply, attempt: Attempt, number: int) -> LiveReply:
    try:
        text = await reply.next_text()
    except BaseException:
        await reply.aclose()
        raise
    if not text:
        raise EmptyReplyError("the site's reply is complete and empty; ask again, or differently")
    assert attempt.sent_at is not None
    reply.attempts = number
    reply.connect = attempt.connect
    reply.first_chunk = anyio.current_time() - attempt.sent_at
    return reply


async def _read_reason(answer: Answer) -> bytes:
    """The body of an error answer. If it breaks off, that is no loss where the head says all."""
    try:
        return await _read_some(answer)
    except ReplyInterruptedError:
        if answer.status in _SAID_BY_THE_HEAD:
            return b""
        raise


async def _read_some(answer: Answer, limit: int = ERROR_BODY_LIMIT) -> bytes:
    """The body of an answer that is no reply, as far as it is of use."""
    body = b""
    try:
        while len(body) < limit and (pieces := await answer.receive()):
            body += b"".join(pieces)
    except TransportFailure as failure:
        reason = str(failure)
    else:
        return body[:limit]
    raise ReplyInterruptedError(f"{reason}; ask again")
