"""Text that arrives before its deadline is never lost, even if the event loop is busy.

The event loop's clock jumps past the deadline while the text waits in the kernel, as if the loop
had been blocked.
"""

from __future__ import annotations

import asyncio
import math
import time
from threading import Event
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from support.apis import Api, every_api
from support.raw_site import Exchange, raw_site

from gprochat_anyio import Client, RequestTimeoutError, Timeouts


class Clock(trio.abc.Clock):
    """The system clock, which a test can advance."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def start_clock(self) -> None:
        """Do nothing: the clock runs already."""

    def current_time(self) -> float:
        return time.monotonic() + self.ahead

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop with such a clock."""

    def __init__(self, clock: Clock) -> None:
        self._by = clock
        super().__init__()

    def time(self) -> float:
        return self._by.current_time()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, clock: Clock) -> Any:
    if request.param == "trio":
        return "trio", {"clock": clock}
    return "asyncio", {"loop_factory": lambda: JumpingLoop(clock)}


NO_LIMIT = Timeouts(connect=None, first_chunk=None, idle=None, total=None)

LIMITS = pytest.mark.parametrize(
    "limits",
    [Timeouts(first_chunk=30), Timeouts(idle=30), Timeouts(total=30)],
    ids=["first_chunk", "idle", "total"],
)


class BusySite:
    """A site that sends its reply while the event loop is blocked.

    :param api: The API that it speaks.
    :param before: Data sent earlier.
    :param late: Texts sent while the loop is blocked.
    :param whole: True if the reply ends with them.
    """

    def __init__(self, api: Api, before: bytes, late: tuple[str, ...], *, whole: bool) -> None:
        self._api = api
        self._before = before
        self._late = late
        self._whole = whole
        self._go_on, self._sent = Event(), Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.send(self._before)
        self._go_on.wait(10)
        if not self._before:
            exchange.send(self._api.head)
        exchange.send(self._api.said(*self._late))
        if self._whole:
            exchange.send(self._api.end)
        self._sent.set()
        if not self._whole:
            exchange.until_left()

    def send_while_the_loop_is_blocked(self) -> None:
        self._go_on.set()
        assert self._sent.wait(10)


@every_api
@LIMITS
@pytest.mark.parametrize("size", [3, 45_000], ids=["small", "large"])
async def test_a_whole_reply_that_came_while_the_loop_was_busy(
    api: Api, clock: Clock, limits: Timeouts, size: int
) -> None:
    """A large reply takes several reads."""
    opening = limits.first_chunk == 30
    late = ("x" * size,) * 2
    site = BusySite(api, b"" if opening else api.head + api.said("one"), late, whole=True)
    texts: list[str] = []

    async def ask(client: Client) -> None:
        texts.append((await client.ask("hi", timeouts=limits)).text)

    with raw_site(site) as raw, anyio.fail_after(1000):
        async with api.client(raw.url, timeouts=NO_LIMIT) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, client)
                while not raw.prompts:
                    await checkpoint()
                await anyio.sleep(0.01)  # the first text has probably arrived
                site.send_while_the_loop_is_blocked()
                clock.ahead += 100
    assert texts == [("" if opening else "one") + "".join(late)]


@every_api
@LIMITS
async def test_text_that_came_while_the_loop_was_busy_comes_before_the_error(
    api: Api, clock: Clock, limits: Timeouts
) -> None:
    opening = limits.first_chunk == 30
    site = BusySite(
        api, b"" if opening else api.head + api.said("one"), ("two", "three"), whole=False
    )
    received = ""

    async def stream(client: Client) -> None:
        nonlocal received
        async with client.stream("hi", timeouts=limits) as chunks:
            while not received.endswith("three"):
                received += await chunks.receive()
            if not opening:
                clock.ahead += 100
                with pytest.raises(RequestTimeoutError):
                    await chunks.receive()

    with raw_site(site) as raw, anyio.fail_after(1000):
        async with api.client(raw.url, timeouts=NO_LIMIT) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream, client)
                while not (raw.prompts if opening else received):
                    await checkpoint()
                site.send_while_the_loop_is_blocked()
                clock.ahead += 100
    assert received == ("" if opening else "one") + "twothree"


@every_api
async def test_the_error_if_nothing_came(api: Api, clock: Clock) -> None:
    """A busy event loop does not postpone a deadline either."""
    site = BusySite(api, api.head + api.said("one"), ("late",), whole=False)
    with raw_site(site) as raw, anyio.fail_after(math.inf):
        async with api.client(raw.url) as client:
            async with client.stream("hi", timeouts=Timeouts(idle=30)) as chunks:
                assert await chunks.receive() == "one"
                clock.ahead += 100
                with pytest.raises(RequestTimeoutError) as caught:
                    await chunks.receive()
                assert caught.value.elapsed == pytest.approx(100, abs=5)
        site.send_while_the_loop_is_blocked()
