"""The opening phase of a request, which runs in the caller's task up to the first text."""

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
    """Sender of requests to one endpoint."""

    @property
    def pool(self) -> Pool | None:
        """The connection pool, or `None` if the sender has none."""
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
    """Open a reply, with retries, and return it once its first text has arrived.

    Cancellation closes the connection before it propagates.

    :param path: The path below the API's address.
    :param encode: Return the body of an attempt, newly signed.
    :param sink: The sink that receives the text.
    :param wire: The wire that decodes the responses.
    :param max_size: Maximum size of the reply's body in bytes, `None` for no limit.
    :param watch: The notifier of the request's observers.
    :param whole: Return the reply once it is complete or has failed instead.
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
                "the reply is complete but has no text; ask again, or rephrase the prompt"
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
    """Send a request without retries, and return the body of its response.

    :param body: The request's body, or `None` for a GET.
    :param errors: The reader of error responses.
    :param began: The time at which `total` started.
    :param limit: Maximum number of bytes that are read of the response.
    :raises GPROChatError: If the request fails, or the response is an error.
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
