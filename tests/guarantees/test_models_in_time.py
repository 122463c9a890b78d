"""Models in this process: deadlines fire, and a model runs only as far ahead as its consumer
allows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from support.faults import WAYS, assert_ours, receive_by
from support.loops import virtual
from support.models import Saying

from gprochat_anyio import Client, RequestTimeoutError, Retry, Timeouts, fan_out
from gprochat_anyio._request.incoming import HIGH, LOW
from gprochat_anyio.site import ModelError, Turn

pytestmark = virtual

PIECE = "x" * 1000
LIMITS = Timeouts(connect=1, first_chunk=60, idle=30, total=600)


class After:
    """A model that waits a number of seconds before each text, the last of them for ever."""

    def __init__(self, *seconds: float) -> None:
        self._seconds: Iterator[float] = iter(seconds)
        self._last = seconds[-1]

    async def __call__(self) -> None:
        await anyio.sleep(next(self._seconds, self._last))


@pytest.mark.parametrize("way", WAYS[:3])
@pytest.mark.parametrize(
    ("pause", "phase", "partial_text", "at"),
    [
        (lambda: After(61), "first_chunk", "", 60),
        (lambda: After(59, 29, 31), "idle", "ab", 118),
        (lambda: After(19.9), "total", "ab" * 15, 600),
        (lambda: anyio.sleep_forever, "first_chunk", "", 60),
    ],
)
async def test_each_deadline(
    way: str, pause: Callable[[], Any], phase: str, partial_text: str, at: float
) -> None:
    model = Saying("a", "b", pause=pause(), endless=True)
    async with Client.of(model, timeouts=LIMITS) as client:
        pieces: list[str] = []
        began = anyio.current_time()
        with pytest.raises(RequestTimeoutError) as caught:
            await receive_by(way, client, into=pieces)
        assert model.running == 0
    assert anyio.current_time() - began == pytest.approx(at)
    assert_ours(caught.value, RequestTimeoutError, partial_text)
    assert caught.value.phase == phase
    assert way == "ask" or "".join(pieces) == partial_text


@pytest.mark.parametrize(
    ("limits", "phase", "at"),
    [(Timeouts(idle=30, total=None), "idle", 31), (Timeouts(idle=None, total=300), "total", 300)],
    ids=["idle", "total"],
)
async def test_deadlines_fire_in_a_shielded_scope(limits: Timeouts, phase: str, at: float) -> None:
    model = Saying("a", pause=After(1, 1000), endless=True)
    caught: Any = None
    async with Client.of(model, timeouts=limits) as client:
        with anyio.CancelScope() as outer:
            async with client.stream("hi") as chunks:
                assert await chunks.receive() == "a"
                outer.cancel()
                with anyio.CancelScope(shield=True):
                    with pytest.raises(RequestTimeoutError) as caught:
                        await chunks.receive()
                    assert (caught.value.phase, caught.value.partial_text) == (phase, "a")
        assert anyio.current_time() == pytest.approx(at)
        assert model.running == 0


async def test_deadlines_fire_while_the_caller_is_elsewhere() -> None:
    model = Saying("a", pause=After(1, 1000), endless=True)
    async with Client.of(model, timeouts=Timeouts(idle=30)) as client:
        async with client.stream("hi") as chunks:
            await anyio.sleep_until(30.9)
            assert model.running == 1
            await anyio.sleep_until(31.1)
            assert model.running == 0
            with pytest.raises(RequestTimeoutError) as caught:
                await chunks.read()
            assert caught.value.partial_text == "a"


async def test_total_runs_while_the_model_waits_for_its_consumer() -> None:
    """All text of the model comes before the error."""
    model = Saying(PIECE, endless=True)
    async with Client.of(model, timeouts=Timeouts(idle=1, total=50)) as client:
        async with client.stream("hi") as chunks:
            await anyio.sleep_until(49)
            assert model.running == 1
            await anyio.sleep_until(51)
            assert model.running == 0
            with pytest.raises(RequestTimeoutError) as caught:
                await chunks.read()
        assert (caught.value.phase, len(caught.value.partial_text)) == ("total", model.said)


async def test_retry_after() -> None:
    began: list[float] = []

    async def busy(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        began.append(anyio.current_time())
        if len(began) < 3:
            raise ModelError("busy", status=429, retry_after=7)
        yield "fine"

    async with Client.of(busy, retry=Retry(attempts=3, backoff=0)) as client:
        reply = await client.ask("hi")
        assert (reply.text, reply.timing.attempts) == ("fine", 3)
        assert began == pytest.approx([0, 7, 14])


@pytest.mark.parametrize("way", ["stream", "stream_to", "fan_out"])
async def test_at_most_64_kib_wait_for_the_consumer(way: str) -> None:
    """Then the model waits until the consumer has taken half of it. Only `total` limits the
    wait."""
    model = Saying(*[PIECE] * 300)
    slack = 3 * len(PIECE)
    limits = Timeouts(idle=30, total=None)
    async with Client.of(model, timeouts=limits) as client:
        if way == "stream":
            async with client.stream("hi") as chunks:
                await anyio.sleep(1000)
                assert HIGH <= model.said <= HIGH + slack
                before, taken = model.said, 0
                while model.said == before:
                    taken += len(await chunks.receive())
                    await anyio.sleep(1)
                assert taken >= HIGH - LOW - slack
                await chunks.read()
                assert len(chunks.text) == 300 * len(PIECE)
        elif way == "stream_to":
            send, receive = anyio.create_memory_object_stream[str](1)
            async with receive, anyio.create_task_group() as tasks:
                tasks.start_soon(client.stream_to, "hi", send)
                await anyio.sleep(1000)
                assert HIGH <= model.said <= HIGH + slack
                assert len("".join([text async for text in receive])) == 300 * len(PIECE)
        else:
            async with fan_out(client, ["hi"], max_at_once=1) as events:
                await anyio.sleep(1000)
                assert model.said <= 2 * HIGH
                async for _ in events:
                    pass
        assert model.said == 300 * len(PIECE)
