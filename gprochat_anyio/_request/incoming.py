"""Incoming replies: decode the response's body, and push the text into a sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gprochat_anyio._errors import (
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteError,
)
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._wire.usage import Usage
from gprochat_anyio._wire.wire import ReplyDecoder, Wire
from gprochat_anyio.transport._failures import (
    TransportFailure,
)

from .deadlines import Deadlines
from .failed_response import fields_of
from .loop_affinity import LoopAffinity
from .observers import Watch
from .reply import Reply, Timing
from .request_events import Received
from .response import Head, IncomingResponse
from .sinks import TextSink
from .starts import Permit

HIGH, LOW = 64 * 1024, 32 * 1024
"""Sizes of the waiting text, in bytes, at which the connection is paused and resumed."""


_HEADS = 64
_good_heads: set[tuple[type[Wire], bool, tuple[tuple[bytes, bytes], ...]]] = set()
"""Cache of heads without an error. A server sends nearly the same one each time."""


class IncomingReply(IncomingResponse):
    """A reply, whose text the reactor pushes into a sink as it arrives.

    :param wire: The wire that decodes it.
    :param max_size: Maximum size of the body in bytes, `None` for no limit.
    :param wait_for_end: Do not wake the waiting task for the first text.
    """

    __slots__ = (
        "_chunks",
        "_decoder",
        "_first_chunk",
        "_pending",
        "_sink",
        "_wait_for_end",
        "_watch",
        "_wire",
        "affinity",
        "attempts",
        "characters",
        "complete",
        "on_over",
        "permits",
    )

    error: BaseException | None

    def __init__(
        self,
        deadlines: Deadlines,
        wire: Wire,
        sink: TextSink,
        *,
        max_size: int | None = None,
        wait_for_end: bool = False,
    ) -> None:
        super().__init__(deadlines)
        self.complete: bool = False
        """True once all of the reply has arrived without a failure."""
        self.characters: int = 0
        """Number of characters that have arrived."""
        self.attempts: int = 1
        self.permits: Sequence[Permit] = ()
        """The permits, which are notified of the first text and released when the reply ends."""
        self.on_over: Callable[[IncomingReply], None] | None = None
        """Called once when the reply ends, if it is set before that. It must not raise."""
        self.affinity: LoopAffinity
        """The affinity of the client."""
        self._wire = wire
        self._decoder: ReplyDecoder = wire.decoder(max_size)
        self._sink = sink
        self._wait_for_end = wait_for_end
        self._chunks = 0
        self._first_chunk = 0.0
        self._pending = 0  # bytes of text that are waiting for the consumer
        self._watch: Watch | None = None

    @property
    def timing(self) -> Timing:
        """Durations and counts of the request, up to its end or now."""
        end = self._reactor.time() if self.ended_at is None else self.ended_at
        return Timing(
            connect=self.connect,
            first_chunk=self._first_chunk,
            total=end - self.deadlines.began,
            chunks=self._chunks,
            characters=self.characters,
            attempts=self.attempts,
        )

    def result(self, text: str) -> Reply:
        """Return the reply, which has ended, with its text."""
        return Reply(text, self.timing, self.finish_reason, self.usage)

    @property
    def finish_reason(self) -> str | None:
        """The finish reason, if the API has reported it."""
        return self._decoder.finish_reason

    @property
    def usage(self) -> Usage | None:
        """The token counts, if the API has reported them."""
        return self._decoder.usage

    @property
    def has_pending(self) -> bool:
        """True while text is waiting for the consumer."""
        return self._pending > 0

    async def opened(self) -> None:
        """Wait for the first text, or the end. An exception or cancellation closes the reply.

        If the reply has ended without text, its background task has ended as well.
        """
        if self._wait_for_end:
            await self.wait_until_over()
        else:
            try:
                while not (self._chunks or self.over):
                    await self._signal.wait()
            except BaseException:
                self.close()
                raise
        if not self._chunks:
            await self.wait_closed()

    def taken(self, size: int) -> None:
        """Count text that the consumer has taken, in bytes. Resume the connection if it was
        paused."""
        self._pending -= size
        exchange = self._exchange
        if exchange is not None and exchange.paused and self._pending < LOW and not self.over:
            self.deadlines.since = self._reactor.clock()
            exchange.resume()

    def raise_error(self, partial_text: str) -> None:
        """Raise the error that ended the reply, if any. The consumer calls this after all text."""
        self.tell()
        error = self.error
        if error is not None:
            if isinstance(error, ReplyInterruptedError | RequestTimeoutError | SiteError):
                error.partial_text = partial_text
            raise strip_traceback(error) if isinstance(error, GPROChatError) else error

    def time_out(self) -> None:
        """End the reply because `total` has passed while its text was waiting for room
        elsewhere."""
        self.complete = False
        self.error = self.error or self.deadlines.total_error(self._reactor.clock())
        self.close()

    def watch_from_here(self, watch: Watch) -> None:
        """Notify an observer of the first text now, and later of the end."""
        self._watch = watch
        try:
            watch.first_text()
        except BaseException:
            self.close()
            raise

    def tell(self) -> None:
        """Notify the observer of the end, once. Call this in the consumer's task."""
        watch, self._watch = self._watch, None
        if watch is not None:
            received = Received(self._chunks, self.characters, self.finish_reason, self.usage)
            watch.ended(self.error, self.complete, received)

    def end(self) -> None:
        """Notify the observer and release the connection. Call this in the consumer's task."""
        try:
            self.tell()
        finally:
            self.close()

    def _after_closing(self) -> None:
        if self.permits and (self._chunks or not isinstance(self.error, RateLimitError)):
            assert self.ended_at is not None
            for permit in self.permits:
                permit.release(self.ended_at)
        if self.on_over is not None:
            self.on_over(self)
        if self._chunks:  # otherwise another attempt may use the sink
            self._sink.end()

    def _check(self, response: Head) -> SiteError | None:
        framed = response.framing in ("chunked", "length")
        head = (type(self._wire), framed, tuple(response.headers))
        if response.status == 200 and head in _good_heads:
            return None
        fields = fields_of(response.headers)
        error = self._wire.check_reply_head(response.status, fields, framed=framed)
        if error is None and response.status == 200:
            if len(_good_heads) >= _HEADS:
                _good_heads.clear()
            _good_heads.add(head)
        return error

    def _read_error(self, status: int, headers: dict[str, str], body: bytes) -> SiteError:
        return self._wire.read_error(status, headers, body)

    def _take(self, data: bytes) -> None:
        decoder = self._decoder
        if text := decoder.feed(data):
            self._push(text)
        if decoder.failure is not None:
            self._fail_as(decoder.failure)
        elif decoder.is_whole and not (self.deadlines.lingers or self.over):
            self.deadlines.linger(self._reactor.now)
            self._arm()

    def _push(self, text: str) -> None:
        self.deadlines.since = now = self._reactor.now
        self.characters += len(text)
        self._chunks += 1
        if self._chunks == 1:
            self.deadlines.start("idle", now)
            self._arm()
            self._first_chunk = now - self.sent_at
            for permit in self.permits:
                permit.answered(now)
            if not self._wait_for_end:
                self._signal.set()
        waiting = self._sink.put(text)
        if waiting > 0:
            self._pending += waiting
            if self._pending >= HIGH and self._exchange is not None:
                self._exchange.pause()
            self._signal.set()
        elif waiting < 0:
            self.close()  # the consumer has left

    def _finish(self) -> None:
        text = self._decoder.finish()
        if text:
            self._push(text)
        if self._decoder.failure is not None:
            self._fail_as(self._decoder.failure)
        else:
            self._complete()

    def _complete(self) -> None:
        self.complete = not self.over
        self.close()

    def expire(self) -> None:
        if self._decoder.is_whole:
            self._complete()
        else:
            super().expire()

    def _break_off(self, failure: TransportFailure) -> None:
        if self._decoder.is_whole:
            self._complete()
        elif self._chunks or self.headed:
            self._fail_as(str(failure))
        else:
            super()._break_off(failure)

    def _fail_as(self, failure: str | GPROChatError) -> None:
        if isinstance(failure, str):
            failure = ReplyInterruptedError(
                f"the reply broke off: {failure}; ask again, or go on from partial_text"
            )
        self._fail(failure)

    def _fail(self, error: BaseException) -> None:
        if self.over:
            return
        try:
            if (self._chunks or isinstance(error, ReplyInterruptedError)) and (
                text := self._decoder.cut()
            ):
                self._push(text)
        finally:
            super()._fail(error)
