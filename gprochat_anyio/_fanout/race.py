"""Races: send one prompt several times, and stream the reply that gives text first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from gprochat_anyio._errors import GPROChatError, InvalidPromptError
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._request.chat_client import ChatClient, opener_of
from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.limiter import Limiter
from gprochat_anyio._request.opener import PreparedRequest
from gprochat_anyio._request.sinks import ChannelSink
from gprochat_anyio._request.stream import ReplyStream, open_channel
from gprochat_anyio._settings import Timeouts, check
from gprochat_anyio._wire.messages import Prompt

from .bare_task_group import BareTaskGroup, KeptFailures

if TYPE_CHECKING:
    from gprochat_anyio._client import Client
    from gprochat_anyio._fleet.fleet import Fleet


class RaceStream(ReplyStream):
    """The reply that wins a race, as it arrives; see `race` and `ReplyStream`."""

    def __init__(self, race: Race) -> None:
        super().__init__(race.run)
        self._race = race

    @property
    def client(self) -> Client | Fleet:
        """The client that won.

        :raises RuntimeError: Before the block is entered.
        """
        return self._race.clients[self.winner]

    @property
    def winner(self) -> int:
        """The index of the winning start, from 0, in the order of the clients.

        :raises RuntimeError: Before the block is entered.
        """
        if self._race.winner is None:
            raise RuntimeError("a race has no winner before it is entered: async with race(...)")
        return self._race.winner


def race(
    clients: Client | Fleet | Sequence[Client | Fleet],
    prompt: Prompt,
    *,
    hedge_after: float = 0.0,
    timeouts: Timeouts | None = None,
    limiter: Limiter | None = None,
) -> RaceStream:
    """Ask several sites, and stream the reply that gives text first.

    ::

        async with race([client_a, client_b], prompt, hedge_after=2.0) as chunks:
            async for chunk in chunks:
                ...

    Entering the block sends the requests. When the first text of one reply arrives, the other
    requests are cancelled, and their connections are closed before the block begins. A failure
    after that does not move on to another client. `chunks.client` and `chunks.winner` identify the
    winner. Cancellation while entering closes all connections before it propagates.

    :param clients: The clients in the order of their starts. A single client is asked twice
        (hedging); `[client] * 3` asks it three times. The caller closes them.
    :param hedge_after: Time between two starts, in seconds; 0 starts all at once. If a request
        fails, the next one starts immediately.
    :param timeouts: Time limits that override each client's. Every start has its own deadlines.
    :param limiter: A limiter for the starts. A start's deadlines do not apply before it.
    :raises ValueError: If an argument is invalid. The message names it.
    :raises GPROChatError: On entering the block, if none gives text: the last error, with a note
        for each other error. An invalid prompt raises `InvalidPromptError` before anything is sent.
    """
    if isinstance(clients, ChatClient):
        clients = (clients, clients)
    if (
        not isinstance(clients, Sequence)
        or not clients
        or not all(isinstance(client, ChatClient) for client in clients)
    ):
        raise ValueError("clients must be a Client, a Fleet, or a sequence of at least one")
    if (
        isinstance(hedge_after, bool)
        or not isinstance(hedge_after, int | float)
        or not 0 <= hedge_after < math.inf
    ):
        raise ValueError("hedge_after must be a number of seconds, at least 0")
    check("limiter", limiter, Limiter, type(None))
    request = PreparedRequest.of(prompt, timeouts)
    if isinstance(request, PreparedRequest):
        request = request._replace(limiter=limiter)
    return RaceStream(Race(tuple(clients), request, hedge_after))


class Race:
    """One race, from the first start to the first text."""

    def __init__(
        self,
        clients: tuple[Client | Fleet, ...],
        request: PreparedRequest | InvalidPromptError,
        hedge_after: float,
    ) -> None:
        self.clients = clients
        self.winner: int | None = None
        self._request = request
        self._hedge_after = hedge_after
        self._first: tuple[IncomingReply, ChannelSink] | None = None
        self._errors: list[tuple[int, GPROChatError]] = []
        self._changed = anyio.Event()
        self._failure: Exception | None = None
        self._failures = KeptFailures(self._fail)

    async def run(self) -> tuple[IncomingReply, ChannelSink]:
        """Return the winner's reply, after the others have been closed."""
        if isinstance(self._request, InvalidPromptError):
            raise self._request
        try:
            async with BareTaskGroup() as tasks:
                await self._start_all(tasks, self._request)
        except BaseException:
            if self._first is not None:
                await _drop(*self._first)
            raise
        if self._first is not None:
            return self._first
        if self._failure is not None:
            raise self._failure
        (*others, (_, error)) = self._errors
        for number, other in others:
            error.add_note(f"Client {number} of the race: {type(other).__name__}: {other}")
        raise error

    async def _start_all(self, tasks: BareTaskGroup, request: PreparedRequest) -> None:
        """Start the requests one after another, and wait until one has won or all have failed."""
        made_good = 0  # failures that have started the next request
        for number, client in enumerate(self.clients):
            if self._is_over:
                return
            tasks.start_soon(self._try, number, client, request, name="gprochat_anyio race")
            with anyio.move_on_after(self._hedge_after):
                await self._until_failures(made_good + 1)
            if len(self._errors) > made_good:
                made_good += 1
        await self._until_failures(len(self.clients))

    async def _until_failures(self, number: int) -> None:
        while len(self._errors) < number and not self._is_over:
            self._changed = anyio.Event()
            await self._changed.wait()

    async def _try(self, number: int, client: Client | Fleet, request: PreparedRequest) -> None:
        with self._failures:
            try:
                opened = await open_channel(opener_of(client), request)
            except GPROChatError as error:
                strip_traceback(error)
                self._errors.append((number, error))
            else:
                if self._is_over:  # another request has won
                    await _drop(*opened)
                else:
                    self._first, self.winner = opened, number
            self._changed.set()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._changed.set()

    @property
    def _is_over(self) -> bool:
        return self._first is not None or self._failure is not None


async def _drop(reply: IncomingReply, sink: ChannelSink) -> None:
    try:
        reply.end()
    finally:  # observers may raise
        sink.close()
        await reply.wait_closed()
