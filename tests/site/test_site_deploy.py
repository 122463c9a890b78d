"""What a site in service needs: limits, a log, a health check, TLS, an orderly end."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self

import anyio
import pytest
import trustme
from anyio.streams.tls import TLSStream
from site_wire import Wire, ask, connected, serving, signed

from gprochat_anyio import Client, RateLimitError, Retry
from gprochat_anyio.site import ModelError, Turn, _hypercorn, create_app, echo_model, serve
from gprochat_anyio.site._hypercorn_connection import _OnAsyncio
from gprochat_anyio.site._limits import AtMost

ACCESS = "gprochat_anyio.site.access"


class Held:
    """A model that says `first`, then waits to be let go on."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.go_on = anyio.Event()
        self.stopped = anyio.Event()

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            yield "first"
            self.asked.set()
            await self.go_on.wait()
            yield "last"
        finally:
            self.stopped.set()


class Texts:
    """A model that is no generator."""

    def __init__(self, turns: tuple[Turn, ...]) -> None:
        self._texts = ["a", "b"]

    def __aiter__(self) -> Texts:
        return self

    async def __anext__(self) -> str:
        if not self._texts:
            raise StopAsyncIteration
        return self._texts.pop(0)


class TestAtMost:
    async def test_refuses_those_beyond(self) -> None:
        held = Held()
        async with (
            serving(create_app(held, max_at_once=1)) as port,
            Client(f"http://127.0.0.1:{port}", retry=Retry(attempts=1), trust_env=False) as client,
        ):
            async with client.stream("Hi") as chunks:
                assert await anext(aiter(chunks)) == "first"
                with pytest.raises(RateLimitError) as raised:
                    await client.ask("Hi")
                assert raised.value.retry_after == 1
                held.go_on.set()
                assert await chunks.read() == "last"
            held.go_on.set()
            assert (await client.ask("Hi")).text == "firstlast"

    async def test_counts_those_that_left_no_more(self) -> None:
        held = Held()
        async with serving(create_app(held, max_at_once=1)) as port:
            for _ in range(3):
                held.__init__()  # type: ignore[misc]
                async with connected(port) as wire:
                    await wire.send(signed())
                    with anyio.fail_after(5):
                        await held.asked.wait()
                with anyio.fail_after(5):
                    await held.stopped.wait()

    async def test_any_iterable(self) -> None:
        assert [text async for text in AtMost(Texts, 1)((Turn("user", "x"),))] == ["a", "b"]

    async def test_a_model_that_fails(self) -> None:
        async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
            raise ModelError("no")
            yield ""

        limited = AtMost(model, 1)
        for _ in range(2):
            with pytest.raises(ModelError, match=r"^no$"):
                await anext(limited((Turn("user", "x"),)))

    def test_at_least_one(self) -> None:
        with pytest.raises(ValueError, match="max_at_once"):
            create_app(max_at_once=0)


async def test_the_health_check_needs_no_password_and_no_model() -> None:
    async with serving(create_app(echo_model, passwords=["word"])) as port:
        seen = await ask(port, b"", path="/healthz", method="GET")
    assert (seen.status, seen.body) == (200, b'{"status":"ok"}')


async def test_the_echo() -> None:
    async with serving(echo_model) as port:
        assert (await ask(port, signed(" one\ntwo  three "))).chunks == [
            b" one\n",
            b"two  ",
            b"three ",
        ]


class TestAccessLog:
    async def test_has_a_line_a_request(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, ACCESS)
        async with serving(echo_model) as port:
            await ask(port, signed("secret words"))
            await ask(port, b"", path="/a%0Ab%22?secret=1", method="GET")
        first, second = (r.getMessage() for r in caplog.records if r.name == ACCESS)
        assert first.startswith('127.0.0.1 "POST /api/generate" 200 12 bytes 0.')
        assert first.endswith(" s")
        assert second.startswith(r'127.0.0.1 "GET /a%0Ab%22" 404 ')
        assert "secret" not in caplog.text

    async def test_tells_what_was_cut_off(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, ACCESS)
        held = Held()
        async with serving(held) as port:
            async with connected(port) as wire:
                await wire.send(signed())
                await held.asked.wait()
            with anyio.fail_after(5):
                await held.stopped.wait()
        (line,) = (r.getMessage() for r in caplog.records if r.name == ACCESS)
        assert '"POST /api/generate" 200 5 bytes ' in line
        assert line.endswith(" s cut off")

    async def test_of_a_client_without_an_address(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, ACCESS)

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "client": None}
        await create_app()(scope, receive, receive)  # type: ignore[arg-type]
        (line,) = (r.getMessage() for r in caplog.records if r.name == ACCESS)
        assert line.startswith('- "GET /" - 0 bytes ')

    async def test_is_off(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING, ACCESS)
        async with serving(echo_model) as port:
            await ask(port, signed())
        assert caplog.text == ""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_of(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


class TestTLS:
    async def test_serves_https(self, authority: trustme.CA) -> None:
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tg:
                url: str = await tg.start(
                    partial(serve, echo_model, ssl_context=context_of(authority))
                )
                assert url.startswith("https://127.0.0.1:")
                async with Client(url, ssl_context=trusting, trust_env=False) as client:
                    assert (await client.ask("Hello")).text == "Hello"
                tg.cancel_scope.cancel()

    async def test_stops_the_model_when_a_client_leaves(self, authority: trustme.CA) -> None:
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        held = Held()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tg:
                url: str = await tg.start(partial(serve, held, ssl_context=context_of(authority)))
                port = int(url.rpartition(":")[2])
                async with await anyio.connect_tcp("127.0.0.1", port) as raw:
                    stream = await TLSStream.wrap(
                        raw, hostname="127.0.0.1", ssl_context=trusting, standard_compatible=False
                    )
                    await Wire(stream).send(signed())
                    await held.asked.wait()
                await held.stopped.wait()
                tg.cancel_scope.cancel()

    async def test_spares_those_who_speak_no_tls(self, authority: trustme.CA) -> None:
        async with serving(echo_model, ssl_context=context_of(authority)) as port:
            async with connected(port) as wire:
                await wire.send(signed())
                assert b"HTTP" not in await wire.read_to_close()


class TestOrderlyEnd:
    async def test_has_hypercorn_wait_as_long(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = _hypercorn.Server(create_app(), listener)
            server.drain(50)
        assert server._config.graceful_timeout > 50

    async def test_lets_running_replies_end(self) -> None:
        held, until = Held(), anyio.Event()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tg:
                url: str = await tg.start(partial(serve, held, until=until, grace=5))
                port = int(url.rpartition(":")[2])
                async with connected(port) as idle, connected(port) as wire:
                    await wire.send(signed())
                    await wire.read_head()
                    assert await wire.read_chunk() == b"first"
                    until.set()
                    assert await idle.read_to_close() == b""
                    with pytest.raises(OSError, match="connection"):
                        await anyio.connect_tcp("127.0.0.1", port)
                    held.go_on.set()
                    assert await wire.read_chunk() == b"last"
                    assert await wire.read_chunk() == b""

    async def test_cuts_them_off_when_the_grace_is_over(self) -> None:
        held, until = Held(), anyio.Event()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tg:
                url: str = await tg.start(partial(serve, held, until=until, grace=0.05))
                async with connected(int(url.rpartition(":")[2])) as wire:
                    await wire.send(signed())
                    await wire.read_head()
                    until.set()
                    assert not (await wire.read_to_close()).endswith(b"0\r\n\r\n")
                assert held.stopped.is_set()

    async def test_is_over_at_once_when_nothing_runs(self) -> None:
        until = anyio.Event()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tg:
                await tg.start(partial(serve, echo_model, until=until, grace=60))
                until.set()

    @pytest.mark.parametrize("asked", [False, True], ids=["fresh", "kept"])
    async def test_waits_for_no_farewell_of_tls(self, authority: trustme.CA, asked: bool) -> None:
        """The clients of idle connections may say theirs when they like."""
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        until = anyio.Event()
        secure: dict[str, Any] = {"ssl_context": context_of(authority), "until": until, "grace": 60}
        async with AsyncExitStack() as clients:
            with anyio.fail_after(10):
                async with anyio.create_task_group() as tg:
                    url: str = await tg.start(partial(serve, echo_model, **secure))
                    raw = await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))
                    clients.push_async_callback(anyio.aclose_forcefully, raw)
                    stream = await TLSStream.wrap(
                        raw, hostname="127.0.0.1", ssl_context=trusting, standard_compatible=False
                    )
                    if asked:
                        wire = Wire(stream)
                        await wire.send(signed())
                        assert (await wire.read()).status == 200
                    until.set()

    @pytest.mark.parametrize("unsent", [0, 1])
    async def test_what_is_still_to_be_sent_is_sent_first(self, unsent: int) -> None:
        """By asyncio, to a client that reads slowly, of a connection that is idle otherwise."""
        told: list[object] = []

        class Writer:
            transport = property(lambda self: self)

            def close(self) -> None:
                told.append("close")

            def get_write_buffer_size(self) -> int:
                return unsent

            def abort(self) -> None:
                told.append("abort")

        class Protocol:
            async def handle(self, event: object) -> None:
                told.append(type(event).__name__)

        connection: Any = _OnAsyncio.__new__(_OnAsyncio)
        connection.protocol, connection.writer = Protocol(), Writer()
        await connection._initiate_server_close()
        assert told == ["Closed", "close"] + ["abort"] * (not unsent)

    async def test_can_be_cancelled(self) -> None:
        held, until = Held(), anyio.Event()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tg:
                url: str = await tg.start(partial(serve, held, until=until, grace=60))
                async with connected(int(url.rpartition(":")[2])) as wire:
                    await wire.send(signed())
                    await held.asked.wait()
                    until.set()
                    await anyio.wait_all_tasks_blocked()
                    tg.cancel_scope.cancel()


def test_a_rate_limit_goes_to_every_wire() -> None:
    assert str(ModelError("slow", status=429)) == "[429 Too Many Requests] slow"
    assert str(ModelError("[429 x] slow", status=429)) == "[429 x] slow"


@pytest.mark.parametrize("max_at_once", [None, 1])
async def test_a_model_has_its_time_to_clean_up_under_a_limit(max_at_once: int | None) -> None:
    class Texts:
        """No generator, which a cancellation would end by itself."""

        def __init__(self) -> None:
            self.asked = anyio.Event()
            self.cleaned_up = anyio.Event()

        def __call__(self, turns: tuple[Turn, ...]) -> Self:
            return self

        def __aiter__(self) -> Self:
            return self

        async def __anext__(self) -> str:
            self.asked.set()
            await anyio.sleep_forever()
            raise AssertionError

        async def aclose(self) -> None:
            await anyio.sleep(0.01)
            self.cleaned_up.set()

    texts = Texts()
    async with serving(create_app(texts, max_at_once=max_at_once)) as port:
        async with connected(port) as wire:
            await wire.send(signed())
            await texts.asked.wait()
        with anyio.fail_after(5):
            await texts.cleaned_up.wait()


@pytest.mark.parametrize("grace", [-1, float("nan")])
async def test_a_grace_that_can_not_be(grace: float) -> None:
    with pytest.raises(ValueError, match="grace"), anyio.fail_after(5):
        await serve(echo_model, grace=grace)


async def test_a_model_without_a_close_under_a_limit() -> None:
    async with serving(create_app(Texts, max_at_once=1)) as port:
        for _ in range(2):
            assert (await ask(port, signed())).body == b"ab"
