"""Connecting to names, addresses and Unix sockets, and its failures."""

from __future__ import annotations

import errno
import importlib
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest
from support.servers import (
    black_hole,
    closed_port,
    serving,
)

from gprochat_anyio.testing import NetworkForbiddenError, forbid_network
from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._failures import reason_of
from gprochat_anyio.transport._target import Target

from .connecting import connected, failing, has_ipv6, recorded_sockets, resolving


class TestPlain:
    async def test_by_address(self) -> None:
        async with serving(black_hole) as server:
            async with connected(Target("http", "127.0.0.1", server.port)) as opened:
                assert opened.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert opened.layers == ()
            await server.all_ended()

    async def test_by_ipv6(self) -> None:
        if not await has_ipv6():
            pytest.skip("requires IPv6")
        async with serving(black_hole, host="::1") as server:
            for host in ("::1", "::1%1"):
                async with connected(Target("http", host, server.port)):
                    pass
            await server.all_ended()

    @pytest.mark.parametrize(
        "found", [["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["::1", "127.0.0.1"]]
    )
    async def test_by_a_name_with_dead_and_live_addresses(self, found: list[str]) -> None:
        async with serving(black_hole) as server:
            with resolving({"site.test": found}), recorded_sockets() as made:
                async with connected(Target("http", "site.test", server.port)) as opened:
                    assert not made.still_open(opened)
                    await server.until(lambda: server.accepted == 1)
            await server.all_ended()
            assert server.accepted == 1

    async def test_by_unix_socket(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        async with serving(black_hole, path=path) as server:
            async with connected(Target("http", "site.test", 80), uds=str(path)):
                await server.until(lambda: server.accepted == 1)
            await server.until(lambda: server.ended == 1)

    async def test_refused(self) -> None:
        port = closed_port()
        async with (
            failing(rf"^could not connect to 127\.0\.0\.1:{port}: Connection refused$"),
            connected(Target("http", "127.0.0.1", port)),
        ):
            pass

    async def test_an_ipv6_address_is_shown_in_brackets(self) -> None:
        async with (
            failing(r"^could not connect to \[::1\]:\d+: "),
            connected(Target("http", "::1", closed_port())),
        ):
            pass

    async def test_an_address_that_the_system_refuses_immediately(self) -> None:
        async with (
            failing(r"could not connect to 255\.255\.255\.255:80: "),
            connected(Target("http", "255.255.255.255", 80)),
        ):
            pass

    async def test_connecting_to_an_address_is_a_checkpoint(self) -> None:
        for host in ("127.0.0.1", "255.255.255.255"):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await connect(Target("http", host, 80), ssl_context=None, uds=None)
            assert scope.cancelled_caught

    async def test_refused_at_all_addresses(self) -> None:
        with resolving({"site.test": ["127.0.0.1", "127.0.0.2"]}):
            async with (
                failing(r"^could not connect to site\.test:\d+: Connection refused$"),
                connected(Target("http", "site.test", closed_port())),
            ):
                pass

    async def test_unresolvable(self) -> None:
        with resolving({}):
            async with (
                failing(r"^could not connect to none\.test:80: Name or service not known$"),
                connected(Target("http", "none.test", 80)),
            ):
                pass

    @pytest.mark.parametrize(
        "host", ["x" * 64 + ".invalid", "a..invalid", "\0.invalid", "\xfc.test"]
    )
    async def test_an_invalid_name(self, host: str) -> None:
        async with failing("could not connect to "), connected(Target("http", host, 80)):
            pass

    async def test_no_such_unix_socket(self, tmp_path: Path) -> None:
        async with (
            failing(f"^could not connect to {tmp_path}/none: No such file or directory$"),
            connected(Target("http", "site.test", 80), uds=f"{tmp_path}/none"),
        ):
            pass

    async def test_a_forbidden_network(self) -> None:
        with forbid_network(), recorded_sockets() as made:
            with pytest.raises(NetworkForbiddenError):
                await connect(Target("http", "192.0.2.1", 80), ssl_context=None, uds=None)
        assert not made


@contextmanager
def speaking_first(greeting: bytes) -> Iterator[int]:
    """Run a server in a thread that sends data as soon as it accepts. Return its port."""
    accepted: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.sendall(greeting)
                accepted.append(connection)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in accepted:
            connection.close()


async def test_no_data_is_lost_if_the_server_sends_first() -> None:
    with speaking_first(b"hello") as port:
        for _ in range(50):
            async with connected(Target("http", "127.0.0.1", port)) as opened:
                await anyio.wait_readable(opened.socket)
                assert opened.socket.recv(100) == b"hello"


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('::1', 80)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "No such name"), "No such name"),
        (ssl.SSLError(1, "[SSL] wrong version number"), "[SSL] wrong version number"),
        (OSError("All connection attempts failed"), "All connection attempts failed"),
        (UnicodeError("label too long"), "label too long"),
        (anyio.EndOfStream(), "the peer closed the connection"),
        (
            caused(anyio.BrokenResourceError(), OSError(errno.ECONNRESET, "x")),
            "Connection reset by peer",
        ),
        (
            caused(
                OSError("All connection attempts failed"),
                ExceptionGroup(
                    "several",
                    [
                        OSError(errno.ECONNREFUSED, "one"),
                        OSError(errno.ECONNREFUSED, "other"),
                        OSError(errno.ENETUNREACH, "third"),
                    ],
                ),
            ),
            "Connection refused; Network is unreachable",
        ),
    ],
)
def test_reasons_are_the_systems_messages(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


def test_the_package_has_one_public_name() -> None:
    package = importlib.import_module("gprochat_anyio.transport")
    assert package.AnyIOTransport.__name__ == "AnyIOTransport"
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = package.other


def test_httpx2_is_used_if_httpx_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "gprochat_anyio.transport._http_library"
    httpx2 = pytest.importorskip("httpx2")
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    module = importlib.import_module(name)
    assert module.httpx is httpx2
    assert module.library_of(object()) is httpx2
