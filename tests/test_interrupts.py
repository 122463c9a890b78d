"""Ctrl-C, SystemExit and the caller's own exceptions leave bare, wherever they are raised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from faults import WAYS, receive_by
from loops import VIRTUAL_LOOPS, virtual_backend

from gprochat_anyio import Client
from gprochat_anyio._request.deadlines import Clocks
from gprochat_anyio._request.incoming import LiveReply
from gprochat_anyio._request.opening import Attempt
from gprochat_anyio.testing import Pause, Say, scripted_site
from gprochat_anyio.transport._exchange import Exchange

MANY_READS = [Say("a"), Pause(1)] * 9
LARGE = "x" * 300_000  # sent while its answer is looked for


class _BoomError(Exception):
    pass


EXCEPTIONS = [KeyboardInterrupt, SystemExit, _BoomError]


def raising(error: BaseException) -> Callable[..., Awaitable[Any]]:
    async def interrupted(*_: Any, **__: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    return interrupted


def run(loop: Any, main: Callable[[], Awaitable[object]]) -> BaseException:
    """What leaves `anyio.run`."""
    backend, options = virtual_backend(loop)
    with pytest.raises(BaseException) as caught:
        anyio.run(main, backend=backend, backend_options=options)
    return caught.value


loops = pytest.mark.parametrize("loop", [param.values[0] for param in VIRTUAL_LOOPS])
exceptions = pytest.mark.parametrize("kind", EXCEPTIONS)

PLACES: dict[str, tuple[Any, str, str]] = {
    # where it is raised, and the prompt
    "connecting": (anyio, "connect_tcp", "hello"),
    "connecting, in a task of AnyIO's": (anyio, "connect_tcp", "hello"),
    "sending": (Exchange, "send", "hello"),
    "reading the head": (Exchange, "read_head", "hello"),
    "sending at length": (Exchange, "_send_all", LARGE),
    "reading while sending": (Exchange, "read_head", LARGE),
    "reading the first text": (LiveReply, "next_text", "hello"),
}


@loops
@exceptions
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_while_opening(
    monkeypatch: pytest.MonkeyPatch,
    loop: Any,
    kind: type[BaseException],
    place: str,
    way: str,
) -> None:
    error = kind()

    async def main() -> None:
        owner, name, prompt = PLACES[place]
        raised = BaseExceptionGroup("", [error]) if "AnyIO" in place else error
        async with scripted_site("a") as site:
            url = "http://site.test" if owner is anyio else site.url  # no socket leads to a script
            async with Client(url) as client:
                with monkeypatch.context() as patch:
                    patch.setattr(owner, name, raising(raised))
                    try:
                        await receive_by(way, client, prompt)
                    except BaseException as left:  # noqa: BLE001 - whatever it is
                        failures.append(left)
                        raise _Left from None
        pytest.fail("nothing was raised")

    failures: list[BaseException] = []
    left = run(loop, main)
    # asyncio ends the loop at once if it is one of its tasks that Ctrl-C hits
    assert failures == [error] or left is error


class _Left(BaseException):
    pass


@loops
@exceptions
@pytest.mark.parametrize("when", ["stage", "signing"])
def test_in_a_callback(
    monkeypatch: pytest.MonkeyPatch, loop: Any, kind: type[BaseException], when: str
) -> None:
    error = kind()

    def interrupted(*_: Any, **__: Any) -> None:
        raise error

    async def main() -> None:
        async with scripted_site("a") as site, site.client() as client:
            with monkeypatch.context() as patch:
                if when == "stage":
                    patch.setattr(Attempt, "on_stage", interrupted)
                else:
                    patch.setattr("gprochat_anyio._client.encode_generate", interrupted)
                with pytest.raises(kind) as caught:
                    await client.ask("hello")
                assert caught.value is error
                assert error.__cause__ is None
            assert (await client.ask("hello")).text == "a"

    backend, options = virtual_backend(loop)
    anyio.run(main, backend=backend, backend_options=options)


@loops
@exceptions
@pytest.mark.parametrize("reads", [0, 1, 2, 3, 5, 9])
def test_in_the_block(loop: Any, kind: type[BaseException], reads: int) -> None:
    error = kind()

    async def main() -> None:
        async with scripted_site(MANY_READS) as site, site.client() as client:
            with pytest.raises(kind) as caught:
                async with client.stream("hello") as chunks:
                    for _ in range(reads):
                        await chunks.receive()
                    raise error
            assert caught.value is error
            assert (error.__cause__, error.__context__) == (None, None)
            assert not site.open_connections

    backend, options = virtual_backend(loop)
    anyio.run(main, backend=backend, backend_options=options)


@loops
@pytest.mark.parametrize("kind", EXCEPTIONS[:2])
@pytest.mark.parametrize("block_raises", [False, True])
def test_in_the_task_that_watches_the_clocks(
    monkeypatch: pytest.MonkeyPatch, loop: Any, kind: type[BaseException], *, block_raises: bool
) -> None:
    error = kind()
    monkeypatch.setattr(Clocks, "watch", raising(error))

    async def main() -> None:
        async with Client("http://site.test") as client:
            async with client.stream("hello") as chunks:
                await chunks.read()
                if block_raises:
                    raise _BoomError

    async def outer() -> None:
        async with scripted_site(MANY_READS, url="http://site.test"):
            try:
                await main()
            except BaseException as left:  # noqa: BLE001 - whatever it is
                failures.append(left)
                raise _Left from None

    failures: list[BaseException] = []
    left = run(loop, outer)
    assert failures == [error] or left is error
