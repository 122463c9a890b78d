"""The sender that uses the library's own transport."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from gprochat_anyio._errors import GPROChatError
from gprochat_anyio._redaction import Hidden
from gprochat_anyio.transport._connection import Connection
from gprochat_anyio.transport._exchange import Exchange
from gprochat_anyio.transport._failures import TransportFailure
from gprochat_anyio.transport._pool import Pool

from .address import SiteAddress
from .deadlines import Deadlines
from .failed_response import error_of
from .response import IncomingResponse


class NativeSender:
    """Sender over the connections of a pool, directly or through a proxy.

    :param pool: The pool, which is closed with the sender.
    """

    def __init__(self, address: SiteAddress, pool: Pool) -> None:
        self.pool = pool
        self._address = address
        self._target = address.target
        self._heads: dict[str, bytes] = {}

    async def send(
        self, path: str, encode: Callable[[], Any], response: IncomingResponse, *, fresh: bool
    ) -> None:
        """Send a request. The reactor then feeds its response.

        An exception or cancellation closes the connection and frees its slot.

        :param encode: Return the body. If it returns `None`, the request is a GET.
        :param fresh: Do not use a kept-alive connection.
        :raises GPROChatError: If connecting fails or takes too long.
        """
        connection = None if fresh else self.pool.kept(self._target)
        if connection is None:
            connection, since = await self._connect(response.deadlines, fresh=fresh)
        else:
            since = inf
        try:
            response.connected(None if connection.reused else connection.reactor.clock() - since)
            body = encode()
            if body is None:
                request = self._address.get(path)
            else:
                head = self._heads.get(path)
                if head is None:
                    head = self._heads[path] = self._address.head(path)
                request = Hidden(b"".join((head, b"%d\r\n\r\n" % len(body), body)))
            del body
            response.begin(Exchange(self.pool, connection, response), connection.reactor)
        except BaseException:
            self.pool.discard(connection)
            raise
        try:
            if connection.reused:  # otherwise connecting was a checkpoint
                await checkpoint_if_cancelled()
            await connection.send(request)
        except BaseException:
            response.close()
            raise

    async def _connect(self, deadlines: Deadlines, *, fresh: bool) -> tuple[Connection, float]:
        since = inf

        def on_stage(_: str) -> None:
            nonlocal since
            since = anyio.current_time()
            deadlines.start("connect", since)
            scope.deadline = deadlines.due()

        deadlines.suspend()
        error: GPROChatError | None = None
        with anyio.CancelScope(deadline=deadlines.ends) as scope:
            try:
                return await self.pool.acquire(self._target, on_stage, fresh=fresh), since
            except TransportFailure as failure:
                error = error_of(failure)
        raise error or deadlines.error(anyio.current_time())

    async def aclose(self) -> None:
        """Close the idle connections."""
        self.pool.close()
