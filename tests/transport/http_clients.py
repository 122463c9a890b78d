"""Clients of httpx and httpx2 over `AnyIOTransport`, and their servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from support.http_libraries import httpx
from support.servers import Handler, Server, client_context, open_sockets, server_context, serving

from gprochat_anyio.transport import AnyIOTransport


@asynccontextmanager
async def client_of(
    handler: Handler,
    *,
    library: Any = httpx,
    tls: bool = False,
    limits: Any = 5,
    seconds: float = 10,
    **options: Any,
) -> AsyncIterator[tuple[Any, Server]]:
    """Yield an `AsyncClient` of a server. All its connections must be closed at the end.

    :param seconds: The timeout of the block.
    """
    with anyio.fail_after(seconds):
        async with serving(handler, tls=server_context() if tls else None) as server:
            transport = AnyIOTransport(ssl_context=client_context(), **options)
            async with library.AsyncClient(
                transport=transport, base_url=server.url, timeout=limits
            ) as client:
                yield client, server
            assert open_sockets(server.port) == 0
            await server.all_ended()
