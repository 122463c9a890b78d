"""Features of deployed sites: limits, access log, health check, TLS, graceful shutdown."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self

import anyio
import pytest
import trustme
from anyio.streams.tls import TLSStream
from support.blocked import all_tasks_blocked
from support.site_wire import Wire, ask, connected, serving, signed

from gprochat_anyio import Client, RateLimitError, Retry
from gprochat_anyio.site import ModelError, Turn, create_app, echo_model, serve
from gprochat_anyio.site._limited_model import LimitedModel

ACCESS = "gprochat_anyio.site.access"


class Held:
    """A model that yields `first`, then waits for `go_on`."""

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
    """A model that is not a generator."""

    def __init__(self, turns: tuple[Turn, ...]) -> None:
        self._texts = ["a", "b"]

    def __aiter__(self) -> Texts:
        return self

    async def __anext__(self) -> str:
        if not self._texts:
            raise StopAsyncIteration
        return self._texts.pop(0)


class TestLimitedModel:
    async def test_refuses_requests_beyond_the_limit(self) -> None:
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

    async def test_does_not_count_disconnected_clients(self) -> None:
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
        assert [text async for text in LimitedModel(Texts, 1)((Turn("user", "x"),))] == ["a", "b"]

    async def test_a_model_that_fails(self) -> None:
        async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
            raise ModelError("no")
            yield ""

        limited = LimitedModel(model, 1)
        for _ in range(2):
            with pytest.raises(ModelError, match=r"^no$"):
                await anext(limited((Turn("user", "x"),)))

    def test_limits_are_at_least_one(self) -> None:
        for limit in ("max_at_once", "body_limit"):
            with pytest.raises(ValueError, match=limit):
                create_app(**{limit: 0})  # type: ignore[arg-type]


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
    async def test_has_a_line_per_request(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, ACCESS)
        async with serving(echo_model) as port:
            await ask(port, signed("secret words"))
            await ask(port, b"", path="/a%0Ab%22?secret=1", method="GET")
        first, second = (r.getMessage() for r in caplog.records if r.name == ACCESS)
        assert first.startswith('127.0.0.1 "POST /api/generate" 200 12 bytes 0.')
        assert first.endswith(" s")
        assert second.startswith(r'127.0.0.1 "GET /a%0Ab%22" 404 ')
        assert "secret" not in caplog.text

    async def test_marks_incomplete_responses(self, caplog: pytest.LogCaptureFixture) -> None:
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

    async def test_a_client_without_an_address(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, ACCESS)

        sent = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(event: Any) -> None:
            sent.append(event)

        scope: Any = {"type": "http", "method": "GET", "path": "/", "client": None, "headers": []}
        await create_app()(scope, receive, send)
        (line,) = (r.getMessage() for r in caplog.records if r.name == ACCESS)
        assert line.startswith('- "GET /" 403 ')

    async def test_is_off_by_default(self, caplog: pytest.LogCaptureFixture) -> None:
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

    async def test_closes_connections_without_tls(self, authority: trustme.CA) -> None:
        async with serving(echo_model, ssl_context=context_of(authority)) as port:
            async with connected(port) as wire:
                await wire.send(signed())
                assert b"HTTP" not in await wire.read_to_close()


class TestGracefulShutdown:
    async def test_lets_open_replies_finish(self) -> None:
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

    async def test_cuts_them_off_after_the_grace_period(self) -> None:
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

    async def test_is_immediate_without_open_requests(self) -> None:
        until = anyio.Event()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tg:
                await tg.start(partial(serve, echo_model, until=until, grace=60))
                until.set()

    @pytest.mark.parametrize("asked", [False, True], ids=["fresh", "kept"])
    async def test_does_not_wait_for_closure_alerts(
        self, authority: trustme.CA, asked: bool
    ) -> None:
        """Clients of idle connections need not send a closure alert."""
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

    async def test_can_be_cancelled(self) -> None:
        held, until = Held(), anyio.Event()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tg:
                url: str = await tg.start(partial(serve, held, until=until, grace=60))
                async with connected(int(url.rpartition(":")[2])) as wire:
                    await wire.send(signed())
                    await held.asked.wait()
                    until.set()
                    await all_tasks_blocked()
                    tg.cancel_scope.cancel()


def test_every_wire_reports_a_rate_limit() -> None:
    assert str(ModelError("slow", status=429)) == "[429 Too Many Requests] slow"
    assert str(ModelError("[429 x] slow", status=429)) == "[429 x] slow"


@pytest.mark.parametrize("max_at_once", [None, 1])
async def test_a_limited_model_has_time_to_clean_up(max_at_once: int | None) -> None:
    class Texts:
        """Not a generator: a cancellation does not end it."""

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
async def test_an_invalid_grace(grace: float) -> None:
    with pytest.raises(ValueError, match="grace"), anyio.fail_after(5):
        await serve(echo_model, grace=grace)


async def test_a_limited_model_without_aclose() -> None:
    async with serving(create_app(Texts, max_at_once=1)) as port:
        for _ in range(2):
            assert (await ask(port, signed())).body == b"ab"
