"""Fleets, which combine several clients into one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import anyio

from gprochat_anyio._client import Client
from gprochat_anyio._errors import InvalidPromptError
from gprochat_anyio._request.chat_client import ChatClient
from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.opener import PreparedRequest
from gprochat_anyio._request.sinks import ChannelSink
from gprochat_anyio._request.stream import ReplyStream
from gprochat_anyio._settings import Retry, Timeouts
from gprochat_anyio._wire.messages import Prompt

from .fleet_opener import FleetOpener
from .member import EndpointState, Member


class FleetStream(ReplyStream):
    """The reply of a fleet as it arrives; see `Fleet.stream` and `ReplyStream`."""

    def __init__(self, opener: FleetOpener, request: PreparedRequest | InvalidPromptError) -> None:
        super().__init__(self._open)
        self._opener = opener
        self._request = request
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client whose endpoint gives the reply.

        :raises RuntimeError: Before the block is entered.
        """
        if self._client is None:
            raise RuntimeError(
                "there is no client before the block is entered: async with fleet.stream(...)"
            )
        return self._client

    async def _open(self) -> tuple[IncomingReply, ChannelSink]:
        if isinstance(self._request, InvalidPromptError):
            raise self._request
        sink = ChannelSink()
        try:
            reply, member = await self._opener.open_at_one(self._request, sink)
        except BaseException:
            sink.close()
            raise
        self._client = member.client
        return reply, sink


class Fleet(ChatClient[FleetOpener]):
    """Several clients as one, with load balancing and failover.

    ::

        async with Fleet([Client(url_a), Client(url_b)]) as fleet:
            reply = await fleet.ask("Hello")

    A prompt is sent to the less loaded of two random endpoints. A failure before the first text
    moves on to another endpoint; a failure after it never does. Errors that the prompt causes are
    raised immediately. `Timeouts.total` spans all endpoints.

    `eject_after` consecutive failures eject an endpoint: it is not used for a while, then one
    prompt serves as the probe. Each further ejection lasts twice as long, up to ten times
    `eject_for`. A rejected key ejects the endpoint immediately. A rate limit (HTTP status 429)
    pauses it instead. If every endpoint is ejected, ejection is ignored.

    Retries, failovers and hedges share one budget of tokens. Each takes a token, and each
    successful request returns one. A failed prompt without a token waits for other running requests
    to return one, and fails if there are none.

    A fleet of one client behaves like that client. Like its clients, a fleet belongs to one event
    loop. Closing the fleet closes its clients.

    :param clients: One or more different clients.
    :param eject_after: Number of consecutive failures that eject an endpoint.
    :param eject_for: Duration of the first ejection, in seconds.
    :param hedge_after: Time without text after which a second endpoint is asked, in seconds. The
        first reply to give text wins, and the other request is closed. `None` for no hedging.
    :raises ValueError: If an argument is invalid. The message names it.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        *,
        eject_after: int = 3,
        eject_for: float = 30.0,
        hedge_after: float | None = None,
    ) -> None:
        _check_clients(clients)
        if isinstance(eject_after, bool) or not isinstance(eject_after, int) or eject_after < 1:
            raise ValueError("eject_after must be an int of at least 1")
        _check_seconds("eject_for", eject_for)
        if hedge_after is not None:
            _check_seconds("hedge_after", hedge_after)
        self._clients = tuple(clients)
        self._opener = FleetOpener(
            [Member(c, eject_after=eject_after, eject_for=eject_for) for c in clients],
            hedge_after,
        )

    def __repr__(self) -> str:
        urls = ", ".join(client.url for client in getattr(self, "_clients", ()))
        return f"<Fleet of {urls or 'nothing'}>"

    @property
    def clients(self) -> tuple[Client, ...]:
        """The clients, in the given order."""
        return self._clients

    @property
    def url(self) -> str:
        """The distinct addresses of the clients without credentials, sorted and separated by
        spaces.

        It does not depend on the order of the clients.
        """
        return " ".join(sorted({client.url for client in self._clients}))

    @property
    def timeouts(self) -> Timeouts:
        """The time limits of the first client. Each client uses its own."""
        return self._opener.timeouts

    @property
    def retry(self) -> Retry:
        """The retry policy of the first client. Each client uses its own."""
        return self._opener.retry

    @property
    def states(self) -> tuple[EndpointState, ...]:
        """The current state of each endpoint, in the order of the clients.

        :raises RuntimeError: If no event loop is running.
        """
        now = anyio.current_time()
        return tuple(member.state(now) for member in self._opener.roster.members)

    async def check_password(self) -> bool:
        """Return True if every site accepts its client's password, or requires none.

        Cancellation closes the connection.

        :raises GPROChatError: If a request fails.
        """
        self._opener.check_usable()
        for client in self._clients:
            if not await client.check_password():
                return False
        return True

    def stream(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> FleetStream:
        """Return a stream of the reply: `async with fleet.stream(prompt) as chunks`.

        `chunks.client` is the client whose endpoint gives the reply. Leaving the block or
        cancelling it closes the connection.

        :param timeouts: Time limits that override each client's.
        :raises GPROChatError: On entering the block, if no endpoint gives text: the last error,
            with a note for each other endpoint that failed. See `ReplyStream`.
        """
        return FleetStream(self._opener, PreparedRequest.of(prompt, timeouts))


def _check_clients(clients: object) -> None:
    if (
        not isinstance(clients, Sequence)
        or not clients
        or not all(isinstance(client, Client) for client in clients)
    ):
        raise ValueError("clients must be a sequence of at least one Client")
    if len({id(client) for client in clients}) < len(clients):
        raise ValueError("clients must be different: give each Client once")


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0")
