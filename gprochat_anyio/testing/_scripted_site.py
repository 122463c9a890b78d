"""Sites that do as they are told: the one in memory, and what it shares with the live one."""

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
"""A script, or a function that makes one for each request; that one may be endless."""

_TICK = 0.01  # seconds

_numbers = count(1)


class ScriptedSite:
    """A site that answers by scripts, and tells what it was asked. See `scripted_site`.

    :param loop: the event loop that it runs in; None is that of each client
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
        """What was asked, oldest first, with what the site refused of itself."""
        self.connections = 0
        """How many connections were made."""
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
        """How many connections are open, kept ones included."""
        return len(self._open)

    def client(self, **overrides: Any) -> Client:
        """A client of this site's own API, with its secret key and password.

        The caller closes it, as any other: `async with site.client() as client`.

        :param overrides: arguments of `Client`
        """
        settings: dict[str, Any] = {
            "url": self.url,
            "secret_key": self._gate.secret_key,
            "password": self._password,
            "trust_env": False,
        }
        return Client(**settings | overrides)

    def openai_client(self, model: str = "scripted", **settings: Any) -> Client:
        """A client of OpenAI's API at this site, with its password as the key.

        :param settings: further arguments of `Client.openai`, or others than the site's own
        """
        return Client.openai(model=model, **self._api_settings("v1") | settings)

    def gemini_client(self, **settings: Any) -> Client:
        """A client of Gemini's API at this site, with its password as the key.

        :param settings: further arguments of `Client.gemini`, or others than the site's own
        """
        ours = self._api_settings("v1beta")
        ours["api_key"] = ours["api_key"] or "scripted"  # the API has none without one
        return Client.gemini(**ours | settings)

    def _api_settings(self, version: str) -> dict[str, Any]:
        return {
            "base_url": f"{self.url}/{version}",
            "api_key": self._password or self._gate.secret_key or None,
            "trust_env": False,
        }

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; it is looked at whenever something happens to the site:
        `await site.until(lambda: not site.open_connections)`. Always a checkpoint.

        To be awaited in the event loop of the clients, for a live site in any. Bound it, by
        `anyio.fail_after`.

        :param condition: is called, and tells
        """
        await checkpoint()
        while not condition():
            if self._loop not in (None, current_token()):
                await anyio.sleep(_TICK)  # what happens there wakes nobody here
                continue
            event = anyio.Event()
            self._watchers.append(event)
            await event.wait()

    # What connections need of their site

    def connect(self) -> SiteConnection:
        """A new connection, its client's end."""
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
    """A site in memory, for the time of its block, `async with` or `with`."""

    def __init__(
        self, replies: tuple[Reply, ...], *, url: str | None, connect_after: float, **settings: Any
    ) -> None:
        super().__init__(replies, **settings)
        address = SiteAddress(url or f"https://scripted-{next(_numbers)}.test", trust_env=False)
        self.url = address.url
        self._origin = address.origin
        self._connect_after = connect_after

    def __enter__(self) -> Self:
        there = in_memory.setdefault(self._origin, connected := self._connected)
        if there is not connected:
            if there == connected:
                raise RuntimeError(f"{self!r} is open already, which the fixtures see to")
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
    """A site in memory, for the time of a block: no socket and no thread.

    ::

        async with scripted_site([Say("Hel"), Pause(5), Say("lo")]) as site:
            async with site.client() as client:
                assert (await client.ask("Hi")).text == "Hello"

    Whatever connects to `site.url` gets there by this library, in this process: a `Client` that
    the application made itself, `GPROChat`, an `AnyIOTransport` below httpx. Connections are in
    memory; all above them is the real thing: parser, pool, clocks, retries. Time is the event
    loop's, so a clock that jumps (Trio's `MockClock(autojump_threshold=0)`) makes pauses free.
    Each piece is one read, and comes at the time its pauses add up to, counted from the request.

    It speaks the API of each request, told by its path: `.../chat/completions` is OpenAI's,
    `...:streamGenerateContent` is Gemini's, and anything else a GPROChat site's.

    Each request gets the next reply, the last one again and again; no reply at all is an empty
    one. At the block's end the connections that are open end too.

    :param replies: a str, a step, a sequence of steps, or a function from the `Request` to one
    :param url: the address to answer at, in the place of whoever is really there; `https://` and
        a client's proxy then end in memory too. None makes one up.
    :param secret_key: what requests have to be signed with; without a password also the API key
    :param password: what requests have to bring, as the API key if they are of another API than
        GPROChat's; None lets everybody in
    :param strict: refuse what the embedded site refuses, with the same responses and without using
        up a reply: a wrong signature or password, or a history that it cannot read. In other APIs
        refuse a wrong key, a malformed body, and a request for a reply that is not streamed.
    :param connect_after: seconds that a connection takes to make
    :raises ValueError: for what is no script, or no URL, or a secret key that is not Unicode text
    :raises RuntimeError: on entering, if another scripted site is at that address
    """
    return MemorySite(
        replies,
        url=url,
        connect_after=connect_after,
        secret_key=secret_key,
        password=password,
        strict=strict,
    )
