"""The opening phase of a request: everything up to its first text, in the caller's own task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gprochat_anyio._errors import EmptyReplyError, GPROChatError
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._settings import Timeouts
from gprochat_anyio._wire.wire import Wire
from gprochat_anyio.transport._pool import Pool

from .attempts import Attempts
from .deadlines import Deadlines
from .incoming import IncomingReply
from .observers import Watch
from .response import IncomingResponse
from .sinks import TextSink
from .whole_body import ErrorReader, WholeBody


class Sender(Protocol):
    """Sends requests to one site: over the library's own connections, or another transport."""

    @property
    def pool(self) -> Pool | None:
        """The library's own connections, if it sends over them."""
        ...

    async def send(
        self, path: str, encode: Callable[[], Any], response: IncomingResponse, *, fresh: bool
    ) -> None: ...

    async def aclose(self) -> None: ...


async def open_reply(
    sender: Sender,
    path: str,
    encode: Callable[[], Any],
    sink: TextSink,
    *,
    deadlines: Deadlines,
    attempts: Attempts,
    wire: Wire,
    max_size: int | None,
    watch: Watch | None = None,
    whole: bool = False,
) -> IncomingReply:
    """Return a reply whose first text has arrived, after as many attempts as it takes.

    Cancelled, it closes the connection before it returns.

    :param path: below the site's own
    :param encode: makes the body of an attempt, freshly signed
    :param sink: takes the text
    :param wire: decodes the responses
    :param max_size: of a reply's body in bytes, None for no limit
    :param watch: is told what happens on the way there
    :param whole: True to return the reply once all of it has arrived, or it has failed
    :raises GPROChatError: The last attempt's error. Its chain holds no transport exception.
    """
    while True:
        await attempts.start()
        reply = IncomingReply(deadlines, wire, sink, max_size=max_size, wait_for_end=whole)
        reply.permits = attempts.permits
        if watch is not None:
            reply.on_connected = watch.connected
        error: BaseException
        try:
            await sender.send(path, encode, reply, fresh=attempts.number > 1)
            await reply.opened()
        except GPROChatError as failed:
            error = failed
        except BaseException:
            attempts.release()
            await reply.wait_closed()
            raise
        else:
            if reply.characters:
                reply.attempts = attempts.number
                return reply
            error = reply.error or EmptyReplyError(
                "the reply is complete and empty; ask again, or differently"
            )
        if not isinstance(error, GPROChatError):
            attempts.release()
            raise error
        pause = attempts.failed(error)
        if pause is None:
            raise strip_traceback(error)
        if watch is not None:
            watch.retrying(attempts.number, error, pause)


async def ask_once(
    sender: Sender,
    path: str,
    body: bytes | None,
    errors: ErrorReader,
    *,
    timeouts: Timeouts,
    began: float,
    limit: int,
) -> bytes:
    """Send a request without retries, and return its whole response.

    :param body: None makes it a GET
    :param errors: reads errors
    :param began: when `total` began
    :param limit: the most bytes of the response that are read
    :raises GPROChatError: If there is no good response.
    """
    response = WholeBody(Deadlines(timeouts, began), errors, limit)
    try:
        await sender.send(path, lambda: body, response, fresh=False)
        await response.wait_until_over()
    except GPROChatError as failed:
        response.error = failed
    finally:
        await response.wait_closed()
    if response.error is None:
        return response.body
    if isinstance(response.error, GPROChatError):
        strip_traceback(response.error)
    raise response.error
