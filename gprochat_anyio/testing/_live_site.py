"""A scripted site on a real socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import current_token

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
    """A scripted site on 127.0.0.1, for clients in other processes or of other libraries. It
    speaks the APIs that `scripted_site` does.

    It runs in tasks of the event loop that entered the block; at the block's end, or when that is
    cancelled, its connections are closed, whatever they do. An exception of the block leaves as it
    is; otherwise one that a reply's function raised is raised at the end.

    :param replies: as `scripted_site` takes them
    :param port: 0 lets the system choose; `site.url` has it
    :param secret_key: as for `scripted_site`
    :param password: likewise
    :param strict: likewise
    :raises OSError: if the port is taken
    """
    site = ScriptedSite(
        replies, secret_key=secret_key, password=password, strict=strict, loop=current_token()
    )
    failures: list[BaseException] = []

    async def handle(stream: SocketStream) -> None:
        async with stream:
            try:
                await _serve(site, stream)
            except Exception as error:  # noqa: BLE001 - the script's own functions may raise
                failures.append(error)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    async with listener, anyio.create_task_group() as tasks:
        site.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"  # noqa: S610
        for each in listener.listeners:  # so that all tasks of it are there from the beginning
            tasks.start_soon(each.serve, handle, tasks)
        try:
            yield site
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - the group would wrap it
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
            except Exception as error:  # noqa: BLE001 - the group would wrap it
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
    """Hand on what the client sends, until it leaves."""
    try:
        while True:
            await connection.send(await stream.receive(_READ_SIZE))
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        pass
    finally:
        connection.close()


async def _give_out(connection: SiteConnection, stream: SocketStream) -> None:
    """Send what the script has, to its end, or until the client leaves."""
    while True:
        try:
            data = await connection.receive(_READ_SIZE)
        except anyio.BrokenResourceError:  # the script resets the connection
            # The client may have left. AnyIO asks the socket for its addresses too.
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
