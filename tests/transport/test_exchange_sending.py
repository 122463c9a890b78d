"""Sending of a request, while the server reads, responds early or leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.servers import CHUNKED, LAST_CHUNK, OK, Peer, open_sockets, repeating

from gprochat_anyio.transport._failures import ConnectionLost
from gprochat_anyio.transport._response_buffer import ResponseBuffer
from gprochat_anyio.transport._response_parser import ResponseParser

from .exchanges import CHUNKED_POST, POST, head_of, rest_of, site
from .marks import TLS

pytestmark = pytest.mark.usefixtures("reader_tasks")


class TestSending:
    async def test_the_stages_of_a_small_request(self) -> None:
        async with site(repeating()) as to:
            await to.get()
            assert to.stages == ["connect", "send", "read"]
            to.stages.clear()
            await to.get()
            assert to.stages == ["send", "read"]

    @TLS
    @pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 3_000_000])
    async def test_bodies_of_any_size(self, size: int, *, tls: bool) -> None:
        seen = b""

        async def handle(peer: Peer) -> None:
            nonlocal seen
            while True:
                seen = (await peer.request()).body
                await peer.send(OK)

        body = bytes(range(256)) * (size // 256) + b"!" * (size % 256)
        async with site(handle, tls=tls) as to:
            for _ in range(2):
                assert await to.get(POST % size, body) == b"ok"
                assert seen == body
            assert to.server.accepted == 1
            assert to.stages[-1] == "read"

    async def test_an_iterators_parts(self) -> None:
        async def parts() -> AsyncGenerator[bytes]:
            for part in (b"3\r\nhel\r\n", b"2\r\nlo\r\n", LAST_CHUNK):
                await checkpoint()
                yield part

        seen = b""

        async def handle(peer: Peer) -> None:
            nonlocal seen
            seen = (await peer.request()).body
            await peer.send(OK)
            await peer.until_closed()

        async with site(handle) as to:
            assert await to.get(CHUNKED_POST, parts()) == b"ok"
            assert seen == b"hello"
            assert to.kept == 1

    async def test_an_iterators_exception_is_not_wrapped(self) -> None:
        class OwnError(Exception):
            pass

        own = OwnError()

        async def parts() -> AsyncGenerator[bytes]:
            yield b"3\r\nhel\r\n"
            raise own

        async with site(repeating()) as to:
            with pytest.raises(OwnError) as caught:
                await to.get(CHUNKED_POST, parts())
            assert caught.value is own
            assert to.pool.statistics().available == 5
            assert open_sockets(to.server.port) == 0

    @TLS
    @pytest.mark.parametrize("body", ["bytes", "iterator"])
    async def test_a_response_before_the_complete_request(self, body: str, *, tls: bool) -> None:
        closed = 0

        async def endless() -> AsyncGenerator[bytes]:
            nonlocal closed
            try:
                while True:
                    yield b"x" * 65536
            finally:
                closed += 1

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\n\r\nto")
            await go_on.wait()
            await peer.send(b"o much")
            await peer.until_closed()

        go_on = anyio.Event()
        async with site(handle, tls=tls) as to:
            made = await to.send(
                POST % 50_000_000, b"x" * 50_000_000 if body == "bytes" else endless()
            )
            assert head_of(made).status == 413
            go_on.set()
            try:
                assert await rest_of(made) == b"too much"
            except ConnectionLost:
                assert tls
            made.close()
            assert to.kept == 0
            assert open_sockets(to.server.port) == 0
        assert closed == (body == "iterator")

    @TLS
    @pytest.mark.parametrize("body", ["bytes", "iterator"])
    async def test_a_success_before_the_complete_request(
        self, body: str, monkeypatch: pytest.MonkeyPatch, *, tls: bool
    ) -> None:
        """A server that responds part by part needs the rest."""
        head_has_come = anyio.Event()
        on_head = ResponseBuffer.on_head

        def on_head_and_tell(made: ResponseBuffer, response: ResponseParser) -> None:
            on_head(made, response)
            head_has_come.set()

        monkeypatch.setattr(ResponseBuffer, "on_head", on_head_and_tell)

        async def parts() -> AsyncGenerator[bytes]:
            yield b"3\r\nhel\r\n"
            await head_has_come.wait()
            yield b"2\r\nlo\r\n" + LAST_CHUNK

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(CHUNKED)
            await head_has_come.wait()
            if body == "bytes":
                await peer.received.receive_exactly(5_000_000)
            else:
                await peer.received.receive_until(LAST_CHUNK, 100)
            await peer.send(b"2\r\nok\r\n" + LAST_CHUNK)
            await peer.until_closed()

        async with site(handle, tls=tls) as to:
            if body == "bytes":
                assert await to.get(POST % 5_000_000, b"x" * 5_000_000) == b"ok"
            else:
                assert await to.get(CHUNKED_POST, parts()) == b"ok"
            assert to.kept == 1

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_a_response_before_the_server_resets(self, *, large: bool) -> None:
        """A failed upload does not hide the server's response."""

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")

        async with site(handle) as to:
            if large:
                try:
                    made = await to.send(POST % 50_000_000, b"x" * 50_000_000)
                except ConnectionLost as failure:
                    # the reset arrived first: the system discarded the response
                    assert failure.reset  # noqa: PT017
                    return
            else:
                made = await to.send(POST % 2, b"ok")
            assert head_of(made).status == 401
            made.close()

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_a_server_that_closes_during_the_upload(self, *, large: bool) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive_exactly(10)
            peer.reset()

        body = b"x" * (50_000_000 if large else 10)
        async with site(handle) as to:
            with pytest.raises(ConnectionLost) as caught:
                await to.send(POST % len(body), body)
            assert not caught.value.answered

    @TLS
    async def test_a_refused_upload_stops(self, *, tls: bool) -> None:
        """The rest of the current part is not sent after the response."""
        received = 0

        async def handle(peer: Peer) -> None:
            nonlocal received
            await peer.head()
            await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n")
            await go_on.wait()
            await peer.send(b"no")
            received = await peer.until_closed()

        go_on = anyio.Event()
        async with site(handle, tls=tls) as to:
            made = await to.send(POST % 30_000_000, b"x" * 30_000_000)
            assert head_of(made).status == 413
            go_on.set()
            try:
                assert await rest_of(made) == b"no"
            except ConnectionLost:
                assert tls
            made.close()
            await to.server.all_ended()
        assert received < 15_000_000
