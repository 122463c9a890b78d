"""A scripted site on a real socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import current_token

from gprochat_anyio._accepting import Address, accept_connections, listen, url_of

from ._scripted_site import Reply, ScriptedSite
from ._site_connection import SiteConnection

_READ_SIZE = 65536


@asynccontextmanager
async def live_site(
    *replies: Reply,
    port: int = 0,
    secret_key: str = "",
    password: str | None = None,
    strict: bool = True,
) -> AsyncIterator[ScriptedSite]:
    """Run a scripted site on 127.0.0.1, for clients in other processes or of other libraries.

    It speaks the same APIs as `scripted_site`. The site runs in tasks of the event loop that enters
    the block. Leaving the block, or cancelling it, closes all connections immediately. The block's
    own exception propagates unchanged. Otherwise, an exception of a reply's function is raised at
    the end of the block.

    :param replies: As for `scripted_site`.
    :param port: The port. 0 lets the system choose one, which is part of `site.url`.
    :param secret_key: As for `scripted_site`.
    :param password: As for `scripted_site`.
    :param strict: As for `scripted_site`.
    :raises OSError: If the port is in use.
    """
    site = ScriptedSite(
        replies, secret_key=secret_key, password=password, strict=strict, loop=current_token()
    )
    failures: list[BaseException] = []

    async def handle(accepted: socket.socket) -> None:
        with accepted:
            try:
                stream = await SocketStream.from_socket(accepted)
            except (OSError, ValueError):  # the client has disconnected
                return
            async with stream:
                try:
                    await _serve(site, stream)
                except Exception as error:  # noqa: BLE001 - raised by functions of the script
                    failures.append(error)

    def take(accepted: socket.socket, client: Address) -> None:  # noqa: ARG001
        tasks.start_soon(handle, accepted)

    with listen(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ("127.0.0.1", port)) as own:
        async with anyio.create_task_group() as tasks:
            site.url = url_of(own, "http")
            tasks.start_soon(accept_connections, own, take)
            try:
                yield site
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - the task group would wrap it
                failures.insert(0, error)
            finally:
                tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]


async def _serve(site: ScriptedSite, stream: SocketStream) -> None:
    connection = site.connect()
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def take_in() -> None:
            nonlocal failure
            try:
                await _take_in(stream, connection)
            except Exception as error:  # noqa: BLE001 - the task group would wrap it
                failure = error
            tasks.cancel_scope.cancel()

        tasks.start_soon(take_in)
        try:
            await _give_out(connection, stream)
        except Exception as error:  # noqa: BLE001
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _take_in(stream: SocketStream, connection: SiteConnection) -> None:
    """Feed the client's data to the connection until the client disconnects."""
    try:
        while True:
            await connection.send(await stream.receive(_READ_SIZE))
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        pass
    finally:
        connection.close()


async def _give_out(connection: SiteConnection, stream: SocketStream) -> None:
    """Send the script's data to its end, or until the client disconnects."""
    while True:
        try:
            data = await connection.receive(_READ_SIZE)
        except anyio.BrokenResourceError:  # the script resets the connection
            # The client may have disconnected. AnyIO also asks the socket for its addresses.
            with suppress(OSError, ValueError, AttributeError):
                raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return
        try:
            await stream.send(data)
        except anyio.BrokenResourceError:
            return
