"""The client's way to its site: over the library's own connections, or by another transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gprochat_anyio.transport._exchange import Exchange, exchange
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._stages import OnStage

from .address import SiteAddress

if TYPE_CHECKING:
    import ssl

    import httpx

    from .foreign import HttpxSender


def sender_to(
    address: SiteAddress,
    *,
    transport: httpx.AsyncBaseTransport | None,
    ssl_context: ssl.SSLContext | None,
    max_connections: int | None,
) -> DirectSender | HttpxSender:
    """What sends a client's requests; closing it closes the connections, or the transport."""
    if transport is None:
        pool = Pool(max_connections=max_connections, ssl_context=ssl_context)
        return DirectSender(address, pool)
    from gprochat_anyio.transport._httpx_transport import AnyIOTransport  # noqa: PLC0415 - httpx takes 50 ms

    from .foreign import HttpxSender  # noqa: PLC0415

    if (
        isinstance(transport, AnyIOTransport)
        and type(transport).handle_async_request is AnyIOTransport.handle_async_request
    ):
        return DirectSender(address.by(transport.proxy), transport.pool)
    return HttpxSender(address.url, address.headers, transport)


class DirectAnswer:
    """The answer of an exchange over the library's own connections."""

    __slots__ = ("_parser", "aclose", "framed", "headers", "open_chunk_size", "receive", "status")

    resumable = True

    def __init__(self, made: Exchange) -> None:
        self._parser = parser = made.parser
        self.status = parser.status
        self.framed = parser.framing in ("chunked", "length")
        self.headers = _fields(parser.headers)
        self.open_chunk_size = parser.open_chunk_size
        self.receive = made.receive
        self.aclose = made.aclose

    @property
    def complete(self) -> bool:
        return self._parser.complete


class DirectSender:
    """Sends over the library's own connections, directly or through a proxy.

    :param pool: of the connections; closed with the sender
    """

    def __init__(self, address: SiteAddress, pool: Pool) -> None:
        self._address = address
        self.pool = pool
        self._heads: dict[str, bytes] = {}

    async def send(self, path: str, body: bytes, on_stage: OnStage, *, fresh: bool) -> DirectAnswer:
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = self._address.head(path)
        made = await exchange(
            self.pool,
            self._address.target,
            head + b"%d\r\n\r\n" % len(body),
            body,
            on_stage=on_stage,
            fresh=fresh,
        )
        return DirectAnswer(made)

    async def aclose(self) -> None:
        await self.pool.aclose()


def _fields(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields
