"""Endpoints, which open requests to one API at one address."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from gprochat_anyio._errors import InvalidPromptError, SiteError
from gprochat_anyio._settings import Retry, Timeouts
from gprochat_anyio._wire.api_wire import ApiWire
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
from .whole_body import ErrorReader

if TYPE_CHECKING:
    from .address import SiteAddress

_AUTH_RESPONSE_LIMIT = 4096
_LIST_LIMIT = 8 * 1024 * 1024
"""Maximum size of one page of a list of models in bytes. OpenRouter's has half a megabyte."""
_LIST_PAGES = 20


class Endpoint:
    """One API at one address, or a model in this process.

    :param address: The address, or `None` for a model in this process.
    :param model: The model's name, or `None` if the API has no such parameter.
    :param max_reply_size: Maximum size of a reply's body in bytes, `None` for no limit.
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
        self.observers: Observers = Observers(Observed(host, port, wire.provider, model))
        self.closed: bool = False
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
        """The address, without credentials. For a model in this process: `model:` and its name."""
        return f"model:{self.model}" if self.address is None else self.address.url

    def __str__(self) -> str:
        return f"{self.model} at {self.url}" if self.address and self.model else self.url

    @property
    def pool(self) -> Pool | None:
        """The connection pool, or `None` if the endpoint has none."""
        return self._sender.pool

    def attempts(
        self, request: PreparedRequest, *, retry: Retry | None, began: float | None
    ) -> Attempts:
        """Return the attempts of a request, with its deadlines and permits.

        :param retry: Replaces the endpoint's retry policy.
        :param began: The time at which `total` started. `None` for now, or for its start by a
            limiter.
        :raises RuntimeError: If the endpoint is closed, or belongs to another event loop or
            process.
        """
        now = self.check_usable()
        return Attempts(
            Deadlines(self.timeouts.under(request.timeouts), now if began is None else began),
            retry or self.retry,
            self._permits(request),
            waits_untimed=request.limiter is not None and began is None,
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

        :param attempts: The request's attempts, if they exist already.
        """
        wire = self.wire.with_fields(request.fields) if request.fields else self.wire
        if isinstance(wire, InvalidPromptError):
            raise wire

        def encode() -> Any:  # unlike a partial's, its repr shows no secrets in tracebacks
            return wire.encode(request.messages)

        if attempts is None:
            attempts = self.attempts(request, retry=request.retry, began=request.began)
        watch = self.observers.watch(attempts.follows)
        try:
            reply = await open_reply(
                self._sender,
                request.path or wire.path,
                encode,
                sink,
                deadlines=attempts.deadlines,
                attempts=attempts,
                wire=wire,
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
        """Return True if the site accepts the password, or requires none.

        :raises GPROChatError: If the request fails.
        """
        began = self.check_usable()
        wire = self.wire
        if not isinstance(wire, GPROChatWire):
            raise TypeError("only a GPROChat site can check a password")
        body = encode_auth(wire.password)
        return decode_auth(await self._ask_once(AUTH_PATH, body, wire, began, _AUTH_RESPONSE_LIMIT))

    async def list_models(self) -> list[str]:
        """Return the names of the API's chat models.

        :raises GPROChatError: If the request fails.
        """
        began = self.check_usable()
        wire = self.wire
        if not isinstance(wire, ApiWire):
            raise TypeError("only a model API can list its models")
        names: list[str] = []
        token: str | None = None
        for _ in range(_LIST_PAGES):
            path = wire.models_path(token)
            page = wire.read_models(await self._ask_once(path, None, wire, began, _LIST_LIMIT))
            if isinstance(page, SiteError):
                raise page
            names += page.names
            token = page.next_token
            if token is None:
                break
        return names

    async def _ask_once(
        self, path: str, body: bytes | None, errors: ErrorReader, began: float, limit: int
    ) -> bytes:
        return await ask_once(
            self._sender, path, body, errors, timeouts=self.timeouts, began=began, limit=limit
        )

    def _permits(self, request: PreparedRequest) -> list[Permit]:
        """Return the permits of a request, in the order of acquisition."""
        held = request.may_be_held
        starts = {starts_of(one) for one in (self.limiter, request.limiter) if one is not None}
        if self._connections is not None and (held or any(one.has_rate for one in starts)):
            starts.add(self._connections)
        return [
            one.permit(self.observers, may_be_held=held)
            for one in sorted(starts, key=attrgetter("order"))
        ]

    def check_room(self) -> None:
        """Check that there is room for a consumer; see `Opener.check_room`."""
        if self._connections is not None:
            check_leaves_one("max_connections", self._connections.limits.max_at_once, "the Client")
        if self.limiter is not None:
            check_leaves_one("max_at_once", self.limiter.max_at_once, "the client's Limiter")

    def check_usable(self) -> float:
        """Check that the client can be used here, and return the event loop's time.

        :raises RuntimeError: If the client is closed, or belongs to another event loop or process.
        """
        if self.closed:
            raise RuntimeError("this Client is closed; create a new one")
        return self._affinity.check().clock()

    async def aclose(self) -> None:
        """Close the idle connections. Connections in use are closed when their replies end."""
        if not self.closed:
            self._affinity.check()
        self.closed = True
        await self._sender.aclose()
