"""`AnyIOTransport` of `gprochat_anyio.transport.httpx2`, and both transports without httpx."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

import anyio
import pytest
from support.http_libraries import EACH_LIBRARY, httpx
from support.servers import CHUNKED, LAST_CHUNK, Peer, Request, open_sockets, serving

from gprochat_anyio import transport as package
from gprochat_anyio.transport import _anyio_transport, _http_library, _httpx
from gprochat_anyio.transport._anyio_transport import connections_of
from gprochat_anyio.transport._http_library import library_of

httpx2 = pytest.importorskip("httpx2")


def without_httpx(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> Any:
    """Return a second copy of a module, imported without httpx."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    spec = module.__spec__
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


async def check_streams(transport: Any) -> None:
    """Stream a body to a local server, and its response back, with httpx2's client."""

    async def parts() -> AsyncGenerator[bytes]:
        yield b"hel"
        yield b"lo"

    async def handle(peer: Peer) -> None:
        requests.append(await peer.request())
        await peer.send(CHUNKED + b"3\r\none\r\n")
        await taken.wait()
        await peer.send(b"3\r\ntwo\r\n" + LAST_CHUNK)
        await peer.until_closed()

    requests: list[Request] = []
    taken = anyio.Event()
    with anyio.fail_after(10):
        async with serving(handle) as server:
            async with httpx2.AsyncClient(transport=transport, base_url=server.url) as client:
                async with client.stream("POST", "/", content=parts()) as response:
                    assert type(response) is httpx2.Response
                    assert isinstance(response.stream, httpx2.AsyncByteStream)
                    pieces = response.aiter_raw()
                    assert await anext(pieces) == b"one"
                    taken.set()
                    assert b"".join([piece async for piece in pieces]) == b"two"
            assert open_sockets(server.port) == 0
            await server.all_ended()
    assert [request.body for request in requests] == [b"hello"]


class TestOfHttpx2:
    async def test_is_a_transport_of_httpx2(self) -> None:
        from gprochat_anyio.transport.httpx2 import AnyIOTransport  # noqa: PLC0415

        transport = AnyIOTransport()
        assert isinstance(transport, httpx2.AsyncBaseTransport)
        assert connections_of(transport) is not None
        assert AnyIOTransport.__doc__ == _anyio_transport.HTTPTransport.__doc__
        await check_streams(transport)

    async def test_its_failures_are_httpx2s(self) -> None:
        from gprochat_anyio.transport.httpx2 import AnyIOTransport  # noqa: PLC0415

        async with httpx2.AsyncClient(transport=AnyIOTransport()) as client:
            with pytest.raises(httpx2.UnsupportedProtocol, match="ftp:// is not HTTP"):
                await client.get("ftp://site.test/")


class TestWithoutHttpx:
    async def test_anyio_transport_is_httpx2s(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = without_httpx(monkeypatch, _http_library)
        assert library.httpx is httpx2
        monkeypatch.setitem(sys.modules, _http_library.__name__, library)
        transport = without_httpx(monkeypatch, _httpx).AnyIOTransport()
        assert isinstance(transport, httpx2.AsyncBaseTransport)
        assert connections_of(transport) is not None
        await check_streams(transport)

    @pytest.mark.slow
    def test_in_a_process_without_it(self) -> None:
        code = """
import sys
sys.modules["httpx"] = None
import anyio, httpx2
from gprochat_anyio import Client
from gprochat_anyio.testing import live_site
from gprochat_anyio.transport import AnyIOTransport
from gprochat_anyio.transport.httpx2 import AnyIOTransport as OfHttpx2

async def main():
    async with live_site("Hello") as site:
        for kind in (AnyIOTransport, OfHttpx2):
            assert issubclass(kind, httpx2.AsyncBaseTransport)
            async with httpx2.AsyncClient(transport=kind()) as client:
                assert type(await client.post(site.url)) is httpx2.Response
            async with Client(site.url, transport=kind()) as client:
                assert (await client.ask("Hi")).text == "Hello"

for backend in ("asyncio", "trio"):
    anyio.run(main, backend=backend)
"""
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)  # noqa: S603

    def test_an_object_of_neither_library_is_assigned_to_the_installed_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert without_httpx(monkeypatch, _http_library).library_of(object()) is httpx2


@EACH_LIBRARY
def test_the_library_of_an_object(library: Any) -> None:
    class Own(library.AsyncBaseTransport):  # type: ignore[misc]
        pass

    assert library_of(library.Request("GET", "http://site.test/")) is library
    assert library_of(Own()) is library
    assert library_of(object()) is httpx


class TestConnectionsOf:
    """An `AnyIOTransport`'s connections are used without httpx."""

    def test_a_transport_with_its_own_handler_has_none(self) -> None:
        class Own(package.AnyIOTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                return await super().handle_async_request(request)

        class Named(package.AnyIOTransport):
            pass

        assert connections_of(Own()) is None
        assert connections_of(httpx.MockTransport(lambda _: httpx.Response(200))) is None
        assert connections_of(Named()) is not None


def test_the_package_has_no_other_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Transport'"):
        _ = package.Transport
