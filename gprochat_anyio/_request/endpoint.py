"""One endpoint: a site, how to talk to it, and how to open a request to it."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from gprochat_anyio._settings import Retry, Timeouts
from gprochat_anyio._wire.gprochat import (
    AUTH_PATH,
    decode_auth,
    encode_auth,
)
from gprochat_anyio._wire.gprochat_wire import GPROChatWire
from gprochat_anyio._wire.wire import Wire
from gprochat_anyio.transport._pool import Pool

from .attempts import Attempts
from .deadlines import Deadlines
from .incoming import IncomingReply
from .limiter import Limiter, check_leaves_one, starts_of
from .loop_affinity import LoopAffinity
from .observers import Observers
from .opener import PreparedRequest
from .opening import Sender, ask_once, open_reply
from .request_events import Observed
from .sinks import TextSink
from .starts import Permit, Starts

if TYPE_CHECKING:
    from .address import SiteAddress

_AUTH_RESPONSE_LIMIT = 4096


class Endpoint:
    """One API at one address, or a model in this process, and the way to it.

    :param address: None for a model in this process
    :param model: the model's name; None if the API has no place for it
    :param max_reply_size: of a reply's body in bytes, None for no limit
    """

    def __init__(
        self,
        sender: Sender,
        wire: Wire,
        *,
        address: SiteAddress | None,
        model: str | None = None,
        timeouts: Timeouts,
        retry: Retry,
        limiter: Limiter | None,
        max_reply_size: int | None,
    ) -> None:
        self.address = address
        self.model = model
        self.timeouts = timeouts
        self.retry = retry
        self.limiter = limiter
        host, port = (self.url, 0) if address is None else address.target[1:3]
        self.observers = Observers(Observed(host, port, wire.provider, model))
        self.closed = False
        self._sender = sender
        self.wire = wire
        self._max_reply_size = max_reply_size
        self._affinity = LoopAffinity("Client")
        self._connections: Starts | None = None
        if self.pool is not None and self.pool.max_connections is not None:
            self._connections = Starts(
                self.pool.max_connections, 0.0, adaptive=False, of_connections=True
            )

    @property
    def url(self) -> str:
        """The address, without credentials; `model:` and its name for a model in this process."""
        return f"model:{self.model}" if self.address is None else self.address.url

    def __str__(self) -> str:
        return f"{self.model} at {self.url}" if self.address and self.model else self.url

    @property
    def pool(self) -> Pool | None:
        """The library's own connections, if there are any."""
        return self._sender.pool

    def attempts(
        self, request: PreparedRequest, *, retry: Retry | None, began: float | None
    ) -> Attempts:
        """Return the attempts to open a request, with its deadlines.

        :param retry: in the place of the endpoint's
        :param began: when its `total` began; None for now, or for its turn by a limiter
        :raises RuntimeError: If this is closed, or belongs to another event loop or process.
        """
        now = self.check_usable()
        return Attempts(
            Deadlines(self.timeouts.under(request.timeouts), now if began is None else began),
            retry or self.retry,
            self._permits(request),
            waits_off_clock=request.limiter is not None and began is None,
        )

    async def open(
        self,
        request: PreparedRequest,
        sink: TextSink,
        *,
        whole: bool = False,
        attempts: Attempts | None = None,
    ) -> IncomingReply:
        """Open a request; see `Opener.open`.

        :param attempts: of this request, if they are there already
        """

        def encode() -> Any:  # unlike a partial, it shows no secrets in tracebacks
            return self.wire.encode(request.messages)

        if attempts is None:
            attempts = self.attempts(request, retry=request.retry, began=request.began)
        watch = self.observers.watch(attempts.follows)
        try:
            reply = await open_reply(
                self._sender,
                request.path or self.wire.path,
                encode,
                sink,
                deadlines=attempts.deadlines,
                attempts=attempts,
                wire=self.wire,
                max_size=self._max_reply_size,
                watch=watch,
                whole=whole and watch is None,
            )
        except BaseException as error:
            if watch is not None:
                watch.unanswered(error)
            raise
        reply.affinity = self._affinity
        if watch is not None:
            reply.watch_from_here(watch)
        return reply

    async def check_password(self) -> bool:
        """Return True if the site accepts the password, or has none.

        :raises GPROChatError: If the site does not say.
        """
        self.check_usable()
        if not isinstance(self.wire, GPROChatWire):
            raise TypeError("only a GPROChat site has a password to check")
        body = encode_auth(self.wire.password)
        return decode_auth(
            await ask_once(
                self._sender, AUTH_PATH, body, timeouts=self.timeouts, limit=_AUTH_RESPONSE_LIMIT
            )
        )

    def _permits(self, request: PreparedRequest) -> list[Permit]:
        """Return the permits of a request, in the order in which it acquires them."""
        held = request.may_be_held
        starts = {starts_of(one) for one in (self.limiter, request.limiter) if one is not None}
        if self._connections is not None and (held or any(one.has_rate for one in starts)):
            starts.add(self._connections)
        return [
            one.permit(self.observers, may_be_held=held)
            for one in sorted(starts, key=attrgetter("order"))
        ]

    def check_room(self) -> None:
        """Make sure of room for a consumer; see `Opener.check_room`."""
        if self._connections is not None:
            check_leaves_one("max_connections", self._connections.max_at_once, "the Client")
        if self.limiter is not None:
            check_leaves_one("max_at_once", self.limiter.max_at_once, "the client's Limiter")

    def check_usable(self) -> float:
        """Return the time, by the event loop's clock.

        :raises RuntimeError: If the client is closed, or belongs to another event loop or process.
        """
        if self.closed:
            raise RuntimeError("this Client is closed; make a new one")
        return self._affinity.check().clock()

    async def aclose(self) -> None:
        """Close the idle connections. Those in use are closed as their replies end."""
        if not self.closed:
            self._affinity.check()
        self.closed = True
        await self._sender.aclose()
