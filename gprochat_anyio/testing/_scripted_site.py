"""Scripted sites: the in-memory site, and the base class that it shares with the live site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeAlias

import anyio
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from gprochat_anyio import Client
from gprochat_anyio._request.address import SiteAddress
from gprochat_anyio._wire.admission import Gate, Refusal, WireResponse
from gprochat_anyio._wire.gprochat import AUTH_PATH
from gprochat_anyio.transport._wiring import in_memory

from ._apis import read_request, refusal_of
from ._requests import Request
from ._site_connection import SiteConnection
from ._steps import Hold, Raw, Script, Step, checked_steps, encode_response, steps_of

Reply: TypeAlias = Script | Callable[[Request], Script]
"""A script, or a function that returns one for each request, which may be infinite."""

_TICK = 0.01  # seconds

_numbers = count(1)


class ScriptedSite:
    """A site that replies with scripts and records its requests; see `scripted_site`.

    :param loop: The event loop that it runs in. `None` for the event loop of each client.
    """

    def __init__(
        self,
        replies: tuple[Reply, ...],
        *,
        secret_key: str = "",
        password: str | None = None,
        strict: bool = True,
        loop: EventLoopToken | None = None,
    ) -> None:
        self.url = ""
        """The site's address."""
        self.requests: list[Request] = []
        """The requests, oldest first, including those that the site refused."""
        self.connections: int = 0
        """Number of connections made so far."""
        self._replies = [r if callable(r) else checked_steps(r) for r in replies or ("",)]
        self._gate = Gate(secret_key, () if password is None else (password,))
        self._password = password
        self._strict = strict
        self._answered = 0
        self._open: set[SiteConnection] = set()
        self._watchers: list[anyio.Event] = []
        self._loop = loop

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}, asked {len(self.requests)} times>"

    @property
    def open_connections(self) -> int:
        """Number of open connections, including idle ones."""
        return len(self._open)

    def client(self, **overrides: Any) -> Client:
        """Return a client of this site's own API, with its secret key and password.

        The caller closes it: `async with site.client() as client`.

        :param overrides: Arguments of `Client`.
        """
        settings: dict[str, Any] = {
            "url": self.url,
            "secret_key": self._gate.secret_key,
            "password": self._password,
            "trust_env": False,
        }
        return Client(**settings | overrides)

    def openai_client(self, model: str = "scripted", **settings: Any) -> Client:
        """Return a client of OpenAI's API at this site, with the password as the key.

        :param settings: Arguments of `Client.openai`, which replace the site's.
        """
        return Client.openai(model=model, **self._api_settings("v1") | settings)

    def gemini_client(self, **settings: Any) -> Client:
        """Return a client of Gemini's API at this site, with the password as the key.

        :param settings: Arguments of `Client.gemini`, which replace the site's.
        """
        ours = self._api_settings("v1beta")
        ours["api_key"] = ours["api_key"] or "scripted"  # Gemini's API requires a key
        return Client.gemini(**ours | settings)

    def _api_settings(self, version: str) -> dict[str, Any]:
        return {
            "base_url": f"{self.url}/{version}",
            "api_key": self._password or self._gate.secret_key or None,
            "trust_env": False,
        }

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition is true: `await site.until(lambda: not site.open_connections)`.

        The condition is checked at every event of the site. This is always a checkpoint. Call it in
        the clients' event loop; for a live site, in any event loop. Limit the wait with
        `anyio.fail_after`.

        :param condition: A function that returns a true value once the condition holds.
        """
        await checkpoint()
        while not condition():
            if self._loop not in (None, current_token()):
                await anyio.sleep(_TICK)  # events in another event loop do not wake this task
                continue
            event = anyio.Event()
            self._watchers.append(event)
            await event.wait()

    # The interface for connections

    def connect(self) -> SiteConnection:
        """Return the client's end of a new connection."""
        connection = SiteConnection(self)
        self.connections += 1
        self._open.add(connection)
        self.notify()
        return connection

    def left(self, connection: SiteConnection) -> None:
        self._open.discard(connection)
        self.notify()

    def notify(self) -> None:
        watchers, self._watchers = self._watchers, []
        for event in watchers:
            event.set()

    def ask(
        self, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[Request | None, Iterator[Step | Hold]]:
        if path.endswith(AUTH_PATH):
            return None, iter((Raw(encode_response(self._check_password(body))),))
        request = read_request(self._gate, path, headers, body, anyio.current_time())
        self.requests.append(request)
        refusal = refusal_of(self._gate, request, body) if self._strict else None
        if refusal is None:
            request.number = self._answered
            self._answered += 1
            reply = self._replies[min(request.number, len(self._replies) - 1)]
            steps = iter(steps_of(reply(request)) if callable(reply) else reply)
        else:
            request.outcome = "refused"
            steps = iter((Raw(encode_response(refusal)),))
        self.notify()
        return request, steps

    def _check_password(self, body: bytes) -> WireResponse:
        try:
            return self._gate.check_password(body)
        except Refusal as refusal:
            return refusal.response


class MemorySite(ScriptedSite):
    """An in-memory site, which exists within its `async with` or `with` block."""

    def __init__(
        self, replies: tuple[Reply, ...], *, url: str | None, connect_after: float, **settings: Any
    ) -> None:
        super().__init__(replies, **settings)
        address = SiteAddress(url or f"https://scripted-{next(_numbers)}.test", trust_env=False)
        self.url: str = address.url
        self._origin = address.origin
        self._connect_after = connect_after

    def __enter__(self) -> Self:
        there = in_memory.setdefault(self._origin, connected := self._connected)
        if there is not connected:
            if there == connected:
                raise RuntimeError(f"{self!r} is open already; sites of the fixtures need no block")
            raise RuntimeError(f"another scripted site is at {self._origin} already")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        del in_memory[self._origin]
        for connection in self._open:
            connection.cut()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc_val, exc_tb)
        for connection in self._open:
            if connection.token == current_token():
                connection.wake()

    async def _connected(self) -> SiteConnection:
        await anyio.sleep(self._connect_after)
        return self.connect()


def scripted_site(
    *replies: Reply,
    url: str | None = None,
    secret_key: str = "",
    password: str | None = None,
    strict: bool = True,
    connect_after: float = 0.0,
) -> MemorySite:
    """Return an in-memory site, which exists within its block and needs no socket or thread.

    ::

        async with scripted_site([Say("Hel"), Pause(5), Say("lo")]) as site:
            async with site.client() as client:
                assert (await client.ask("Hi")).text == "Hello"

    All connections of this library in this process to `site.url` reach it: those of a `Client` that
    the application creates, of `GPROChat`, and of an `AnyIOTransport` in httpx. Only the
    connections are replaced; parser, pool, deadlines and retries are real. Time is the event
    loop's, so an autojump clock (Trio's `MockClock(autojump_threshold=0)`) skips pauses. Each piece
    is one read, and arrives after the sum of the pauses before it, counted from the request.

    The path of a request selects its API: `.../chat/completions` for OpenAI's,
    `...:streamGenerateContent` for Gemini's, and any other path for GPROChat's.

    Each request gets the next reply. The last reply is repeated. Without replies, all are empty.
    The end of the block closes all open connections.

    :param replies: Each a str, a step, a sequence of steps, or a function from the `Request` to one
        of these.
    :param url: The site's address, which replaces a real site there. Connections to `https://` and
        through a client's proxy are also in memory. `None` for a generated address.
    :param secret_key: The key that signs requests. Without a password, it is also the API key.
    :param password: The required password, which is the API key in other APIs than GPROChat's.
        `None` for no password.
    :param strict: Refuse the same requests as the embedded site, with the same responses and
        without consuming a reply: a wrong signature or password, or an invalid history. In other
        APIs, refuse a wrong key, an invalid body, and a request without streaming.
    :param connect_after: Time to connect, in seconds.
    :raises ValueError: If a script or the URL is invalid, or the secret key is not valid Unicode.
    :raises RuntimeError: On entering, if there is another scripted site at the address.
    """
    return MemorySite(
        replies,
        url=url,
        connect_after=connect_after,
        secret_key=secret_key,
        password=password,
        strict=strict,
    )
