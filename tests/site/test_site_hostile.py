"""Hostile clients: the site keeps serving, and reveals nothing to them."""

from __future__ import annotations

import hmac
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute
from support.site_wire import Wire, ask, connected, limit, serving, signed

from gprochat_anyio._wire import admission
from gprochat_anyio._wire.gprochat import AUTH_PATH, GENERATE_PATH
from gprochat_anyio.site import Turn, _intake
from gprochat_anyio.site._http1 import Http1
from gprochat_anyio.site._serving import LIMITS

POST = b"POST /api/auth HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UPGRADE = b"GET /api/auth HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: "
PRIOR = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

REFUSED = {
    "h2c": (UPGRADE + b"h2c\r\nHTTP2-Settings: \r\n\r\n", 405),
    "h2c, settings that are not base64": (UPGRADE + b"h2c\r\nHTTP2-Settings: AAA\r\n\r\n", 405),
    "h2c, invalid settings": (UPGRADE + b"h2c\r\nHTTP2-Settings: AAUAAAAB\r\n\r\n", 405),
    "HTTP/2": (PRIOR, 505),
    "HTTP/2, no frames": (PRIOR + b"\xff" * 100, 505),
    "HTTP/3": (b"GET / HTTP/3.0\r\nHost: 127.0.0.1\r\n\r\n", 505),
    "a WebSocket": (UPGRADE + b"websocket\r\n" + KEY, 405),
    "a WebSocket that hurries": (UPGRADE + b"websocket\r\n" + KEY + b"\x81\x05hello\xff\xff", 405),
    "a WebSocket's half": (UPGRADE + b"websocket\r\n\r\n\xff\xff", 405),
    "no host": (b"POST /api/auth HTTP/1.1\r\n\r\n", 400),
    "no method": (b"\xff / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "no path": (b"POST ? HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
    "no text in the path": (b"GET /%ff%00%0d%0a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
    "a path that goes up": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
    "a slash too many": (b"POST /api/auth/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
    "a host of somebody else": (b"POST /api/auth/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", 403),
    "a tunnel": (b"CONNECT b:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
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
async def test_bytes_that_are_not_a_request(case: str, caplog: pytest.LogCaptureFixture) -> None:
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
async def test_bodies_that_strain_the_parser(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as port:
        for path in ("/api/generate", AUTH_PATH):
            seen = await ask(port, body, path=path)
            assert seen.status in (200, 400, 500)
            assert b"Traceback" not in seen.body
    assert caplog.text == ""


async def trickle(wire: Wire, data: bytes) -> bytes:
    """Send byte after byte until the site closes the connection. Return its response."""
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
    limit(monkeypatch, idle_seconds=0.2, head_seconds=0.2)
    async with serving() as port, connected(port) as wire:
        if before:
            await wire.stream.send(before)
        await trickle(wire, b"X")
        assert (await ask(port, signed())).status == 200


async def test_a_second_head_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, idle_seconds=0.2, head_seconds=0.2)
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


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, idle_seconds=0.05)
    async with serving() as port, connected(port) as wire:
        assert await wire.read_to_close() == b""


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.slow
async def test_many_silent_connections() -> None:
    async with serving() as port, connected(port):  # the loop opens descriptors of its own
        pass
    before = descriptors()
    async with serving() as port, AsyncExitStack() as stack:
        for _ in range(300):
            await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
        with anyio.fail_after(5):
            assert (await ask(port, signed())).status == 200
    assert descriptors() == before


class TestPipelined:
    async def test_requests_are_served_in_order(self) -> None:
        async with serving() as port, connected(port) as wire:
            for text in ("one", "two", "three"):
                await wire.send(signed(text))
            for answer in (b"one", b"two", b"three"):
                assert (await wire.read()).body.endswith(answer)

    @pytest.mark.parametrize("resetting", [False, True])
    async def test_a_client_that_disconnects_cancels_the_model(self, resetting: bool) -> None:
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

    async def test_endless_requests_are_cut_off(self) -> None:
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

    async def test_a_large_body_is_not_cut_off(self) -> None:
        async with serving() as port, connected(port) as wire:
            body = signed().ljust(20 * LIMITS.pipelined_bytes)
            await wire.send(body)
            assert (await wire.read()).status == 200


class Silent:
    """A model without text, with events for its start and end."""

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


@pytest.mark.parametrize("failure", [ValueError("canary"), LookupError("canary")])
async def test_a_failing_connection_affects_no_other(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receive = Http1.receive

    def failing(self: Http1, data: bytes) -> None:
        if b"canary" in data:
            raise failure
        receive(self, data)

    monkeypatch.setattr(Http1, "receive", failing)
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


@pytest.mark.slow
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
        # There is no lock-out: behind a proxy, all clients have one address.
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
            # Each password, even after a match, and then the signature.
            assert compared == [(32, 32)] * (4 if b"signature" in answer.body else 3)


async def test_a_replay_is_admitted() -> None:
    # The protocol has neither a time window nor a nonce: a signature stays valid.
    body = signed(secret_key="k")
    async with serving(secret_key="k") as port:
        for _ in range(2):
            assert (await ask(port, body)).status == 200


@pytest.mark.parametrize("path", ["/api/generate", AUTH_PATH, "/v1/chat/completions", "/none"])
@pytest.mark.parametrize("who", ["cross-site", "same-site"])
async def test_pages_of_other_sites(path: str, who: str) -> None:
    """Browsers report the requesting page. The site's own page and other clients are admitted."""
    body = signed()
    fields = f"Host: 127.0.0.1\r\nContent-Length: {len(body)}\r\nSec-Fetch-Site: "
    head = f"POST {path} HTTP/1.1\r\n{fields}"
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
            b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n\r\n"
        )
        assert (await wire.read()).status == 200


@pytest.mark.parametrize("path", [GENERATE_PATH, "/v1/chat/completions"])
async def test_a_model_that_yields_within_a_cancel_scope_affects_no_other_request(
    path: str,
) -> None:
    """Its own reply may break off: its scope also cancels the site's waits."""

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        if turns[-1].text != "hello":
            yield "hello"
            return
        with anyio.CancelScope() as scope:
            scope.cancel()
            yield "a"
        yield "end"

    body = (
        signed()
        if path == GENERATE_PATH
        else b'{"messages": [{"role": "user", "content": "hello"}]}'
    )
    async with serving(model) as port:
        for _ in range(3):
            async with connected(port) as wire:
                await wire.send(body, path=path)
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.IncompleteRead):
                    await wire.read()
        assert (await ask(port, signed("another"))).body == b"hello"
