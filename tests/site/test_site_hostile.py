"""Clients that mean no good, on the wire: the site goes on, and tells them nothing."""

from __future__ import annotations

import hmac
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from hypercorn.protocol.h11 import H11Protocol
from site_wire import Wire, ask, connected, serving, signed

from gprochat_anyio._wire import admission
from gprochat_anyio._wire.gprochat import AUTH_PATH
from gprochat_anyio.site import Turn, _hypercorn, _intake
from gprochat_anyio.site._hypercorn_connection import PIPELINED

POST = b"POST /api/auth HTTP/1.1\r\nHost: a\r\n"
UPGRADE = b"GET /api/auth HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "
PRIOR = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

REFUSED = {
    "h2c": (UPGRADE + b"h2c\r\nHTTP2-Settings: \r\n\r\n", 405),
    "h2c, settings that are no base64": (UPGRADE + b"h2c\r\nHTTP2-Settings: AAA\r\n\r\n", 405),
    "h2c, settings that can not be": (UPGRADE + b"h2c\r\nHTTP2-Settings: AAUAAAAB\r\n\r\n", 405),
    "HTTP/2": (PRIOR, 505),
    "HTTP/2, no frames": (PRIOR + b"\xff" * 100, 505),
    "HTTP/3": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "a WebSocket": (UPGRADE + b"websocket\r\n" + KEY, 405),
    "a WebSocket that hurries": (UPGRADE + b"websocket\r\n" + KEY + b"\x81\x05hello\xff\xff", 405),
    "a WebSocket's half": (UPGRADE + b"websocket\r\n\r\n\xff\xff", 405),
    "no host": (b"POST /api/auth HTTP/1.1\r\n\r\n", 400),
    "no method": (b"\xff / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no path": (b"POST ? HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "no text in the path": (b"GET /%ff%00%0d%0a HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "a path that goes up": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "a slash too many": (b"POST /api/auth/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", 404),
    "a tunnel": (b"CONNECT b:80 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "no length": (POST + b"Content-Length: -1\r\n\r\n{}", 400),
    "a length beyond all bounds": (POST + b"Content-Length: 1" + b"0" * 40 + b"\r\n\r\n{}", 400),
    "an unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n{}", 501),
    "a chunk of no size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "a compressed body": (
        POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
        500,
    ),
    "a field that does not end": (POST + b"X: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    "fields that do not end": (POST + b"X: a\r\n" * 20_000 + b"\r\n", 431),
    "nothing but NUL": (b"\0" * 1000, 400),
    "nothing but blank lines": (b"\r\n" * 100, 400),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_request(case: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    sent, status = REFUSED[case]
    async with serving() as port:
        async with connected(port) as wire:
            await wire.stream.send(sent)
            seen = await wire.read_head()
        assert seen.status == status
        assert "location" not in seen.headers
        assert (await ask(port, signed())).status == 200
    assert caplog.text == ""


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 200_000, b'{"messages":' + b"[" * 500 + b"]" * 500 + b"}", b"\0"],
)
async def test_bodies_that_no_parser_likes(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as port:
        for path in ("/api/generate", AUTH_PATH):
            seen = await ask(port, body, path=path)
            assert seen.status in (200, 400, 500)
            assert b"Traceback" not in seen.body
    assert caplog.text == ""


async def trickle(wire: Wire, data: bytes) -> bytes:
    """Send byte after byte until the site ends the connection; what it said before that."""
    said = bytearray()
    while True:
        try:
            await wire.stream.send(data)
            with anyio.move_on_after(0.01):
                said += await wire.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return bytes(said)


@pytest.mark.parametrize("before", [b"", POST, PRIOR[:10]])
async def test_a_head_that_trickles_is_cut_off(
    before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hypercorn, "KEEP_ALIVE_SECONDS", 0.2)
    async with serving() as port, connected(port) as wire:
        if before:
            await wire.stream.send(before)
        await trickle(wire, b"X")
        assert (await ask(port, signed())).status == 200


async def test_a_second_head_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hypercorn, "KEEP_ALIVE_SECONDS", 0.2)
    async with serving() as port, connected(port) as wire:
        await wire.send(signed())
        assert (await wire.read()).status == 200
        await trickle(wire, b"X")


@pytest.mark.parametrize("framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
async def test_a_body_that_trickles_is_cut_off(
    framing: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_intake, "BODY_SECONDS", 0.2)
    async with serving() as port, connected(port) as wire:
        await wire.stream.send(POST + framing + b"\r\n\r\n")
        piece = b"1\r\n \r\n" if b"chunked" in framing else b" "
        assert (await trickle(wire, piece)).startswith(b"HTTP/1.1 408 ")
        assert (await ask(port, signed())).status == 200


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hypercorn, "KEEP_ALIVE_SECONDS", 0.05)
    async with serving() as port, connected(port) as wire:
        assert await wire.read_to_close() == b""


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_many_silent_connections() -> None:
    async with serving():  # the loop opens some descriptors of its own
        pass
    before = descriptors()
    async with serving() as port, AsyncExitStack() as stack:
        for _ in range(300):
            await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
        with anyio.fail_after(5):
            assert (await ask(port, signed())).status == 200
    assert descriptors() == before


class TestPipelined:
    async def test_requests_are_answered_in_turn(self) -> None:
        async with serving() as port, connected(port) as wire:
            for text in ("one", "two", "three"):
                await wire.send(signed(text))
            for answer in (b"one", b"two", b"three"):
                assert (await wire.read()).body.endswith(answer)

    @pytest.mark.parametrize("resetting", [False, True])
    async def test_a_client_that_leaves_requests_behind_stops_the_model(
        self, resetting: bool
    ) -> None:
        model = Silent()
        async with serving(model) as port:
            async with connected(port) as wire:
                await wire.send(signed())
                await model.started.wait()
                await wire.send(signed())
                if resetting:
                    raw = wire.stream.extra(SocketAttribute.raw_socket)
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with anyio.fail_after(5):
                await model.stopped.wait()

    async def test_requests_without_end_are_cut_off(self) -> None:
        model = Silent()
        async with serving(model) as port, connected(port) as wire:
            await wire.send(signed())
            await model.started.wait()
            piece = b" " * 100_000
            with pytest.raises(anyio.BrokenResourceError):
                for _ in range(1000):
                    await wire.send(piece)
            await model.stopped.wait()
            assert (await ask(port, b"[]")).status == 400

    async def test_a_large_body_is_not_taken_for_them(self) -> None:
        async with serving() as port, connected(port) as wire:
            body = signed().ljust(2 * PIPELINED * 64 * 1024)
            await wire.send(body)
            assert (await wire.read()).status == 200


class Silent:
    """A model that says nothing, and tells when it starts and stops."""

    def __init__(self) -> None:
        self.started = anyio.Event()
        self.stopped = anyio.Event()

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            self.started.set()
            await anyio.sleep_forever()
            yield ""
        finally:
            self.stopped.set()


@pytest.mark.parametrize("failure", [ValueError("canary"), OSError("canary")])
async def test_a_connection_that_fails_fails_alone(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handle = H11Protocol.handle

    async def failing(self: H11Protocol, event: Any) -> None:
        if b"canary" in getattr(event, "data", b""):
            raise failure
        await handle(self, event)

    monkeypatch.setattr(H11Protocol, "handle", failing)
    model = Silent()
    async with serving(model) as port, connected(port) as innocent:
        await innocent.send(signed())
        await model.started.wait()
        async with connected(port) as wire:
            await wire.send(b"canary")
            assert await wire.read_to_close() == b""
        assert (await ask(port, b"[]")).status == 400
        assert not model.stopped.is_set()
    kind = type(failure).__name__
    assert [record.getMessage() for record in caplog.records] == [f"a connection failed: {kind}"]
    assert "canary" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_wrong_passwords_at_speed(caplog: pytest.LogCaptureFixture) -> None:
    async def guess(number: int) -> None:
        async with connected(port) as wire:
            for guessed in range(20):
                await wire.send(signed(pass_=f"{number} {guessed}"))
                seen = await wire.read()
                assert (seen.status, seen.body) == (
                    401,
                    b'{"error":{"message":"Invalid password."}}',
                )
                await wire.send(b'{"pass":"%d"}' % guessed, path=AUTH_PATH)
                assert (await wire.read()).body == b'{"code":-1}'

    async with serving(passwords=["right"]) as port, anyio.create_task_group() as tg:
        for number in range(10):
            tg.start_soon(guess, number)
        # Nobody is locked out meanwhile: behind a proxy, all clients have one address.
        assert (await ask(port, signed(pass_="right"))).status == 200
    assert caplog.text == ""


async def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(admission, "compare_digest", counting)
    async with serving(passwords=["a", "b" * 100, "c"], secret_key="k") as port:
        for password in ("a", "b" * 100, "c", "", "x" * 1000):
            compared.clear()
            answer = await ask(port, signed(pass_=password, sign="0"))
            assert answer.status == 401
            # Each password, whichever matched, and the signature once one has.
            assert compared == [(32, 32)] * (4 if b"signature" in answer.body else 3)


async def test_a_replay_is_let_in_as_the_wire_has_it() -> None:
    # The protocol has no window of time and no nonce: what was signed once stays signed.
    body = signed(secret_key="k")
    async with serving(secret_key="k") as port:
        for _ in range(2):
            assert (await ask(port, body)).status == 200


@pytest.mark.parametrize("path", ["/api/generate", AUTH_PATH, "/v1/chat/completions", "/none"])
@pytest.mark.parametrize("who", ["cross-site", "same-site"])
async def test_pages_of_other_sites(path: str, who: str) -> None:
    """A browser tells who asks. A page of the site's own, and what is no browser, get through."""
    body = signed()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\nSec-Fetch-Site: "
    async with serving() as port:
        for value, refused in ((who, True), ("same-origin", False), ("none", False)):
            async with connected(port) as wire:
                await wire.stream.send(f"{head}{value}\r\n\r\n".encode() + body)
                seen = await wire.read()
            assert (seen.status == 403) is refused
            assert (b"Pages of other sites" in seen.body) is refused


async def test_other_pages_may_link_to_the_site() -> None:
    async with serving() as port, connected(port) as wire:
        await wire.stream.send(
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nSec-Fetch-Site: cross-site\r\n\r\n"
        )
        assert (await wire.read()).status == 200
