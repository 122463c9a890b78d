"""Leaving the block of a fan-out by an exception, a cancellation or a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.exceptions import BoomError
from support.fan_outs import OPEN_ENDED, by_name, numbers
from support.prompted import closed, pool_of, prompted

from gprochat_anyio import Chunk, Failed, as_completed, fan_out, gather


class _StopError(BaseException):
    pass


class TestLeaving:
    @pytest.mark.parametrize("after", [0, 1, 3])
    @pytest.mark.parametrize("make", [fan_out, as_completed])
    async def test_closes_every_connection(self, make: Any, after: int) -> None:
        async with prompted(by_name) as (client, site):
            prompts = ["a", "b", "c", *["endless"] * 20]
            async with make(client, prompts) as results:
                for _ in range(after):
                    await results.receive()
            assert pool_of(client).statistics()[0] == 1000  # with those of idle connections
            await client.aclose()
            await closed(site)

    async def test_the_callers_exception_is_not_wrapped(self) -> None:
        boom = BoomError()
        async with prompted(OPEN_ENDED) as (client, site):
            for cancelled in (False, True):
                with pytest.raises(BoomError) as caught, anyio.CancelScope() as scope:
                    async with fan_out(client, numbers()) as events:
                        await events.receive()
                        if cancelled:
                            scope.cancel()
                        raise boom
                assert caught.value is boom
                assert caught.value.__context__ is None
                await closed(site)

    async def test_the_callers_group_is_not_wrapped(self) -> None:
        group = ExceptionGroup("mine", [BoomError()])
        async with prompted(OPEN_ENDED) as (client, _):
            with pytest.raises(ExceptionGroup) as caught:
                async with fan_out(client, numbers()) as events:
                    await events.receive()
                    raise group
            assert caught.value is group

    async def test_the_callers_cancellation(self) -> None:
        async with prompted(OPEN_ENDED) as (client, site):
            with anyio.CancelScope() as scope:
                async with fan_out(client, numbers()) as events:
                    await events.receive()
                    scope.cancel()
                    await events.receive()
            assert scope.cancelled_caught
            await closed(site)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gather, client, ["a"] * 40)
                while not site.open_connections:
                    await checkpoint()
                tasks.cancel_scope.cancel()
            await closed(site)

    async def test_a_shielded_caller_gets_the_buffered_events(self) -> None:
        """The requests run in the cancelled scope; the shielded consumer does not."""
        async with prompted(OPEN_ENDED) as (client, site):
            with anyio.CancelScope() as outer:
                async with fan_out(client, ["a"]) as events:
                    await site.until(lambda: bool(site.requests))
                    while not events._channel._receive.statistics().current_buffer_used:
                        await checkpoint()
                    with anyio.CancelScope(shield=True):
                        outer.cancel()
                        await closed(site)
                        assert await events.receive() == Chunk(0, "one")
                        for _ in range(2):
                            with pytest.raises(anyio.BrokenResourceError, match="was cancelled"):
                                await events.receive()
                    await checkpoint()
            assert outer.cancelled_caught

    async def test_a_caller_in_a_scope_that_is_cancelled(self) -> None:
        async with prompted(OPEN_ENDED) as (client, site):
            with anyio.CancelScope() as outer:
                async with as_completed(client, ["a"]) as outcomes:
                    outer.cancel()
                    for _ in range(2):  # cancelled each time; never the end of the channel
                        with pytest.raises(anyio.get_cancelled_exc_class()):
                            await outcomes.receive()
                    await checkpoint()
            assert outer.cancelled_caught
            await closed(site)

    async def test_an_error_of_closing_the_input(self) -> None:
        boom = BoomError()

        async def prompts() -> AsyncGenerator[str]:
            try:
                while True:
                    yield "a"
            finally:
                raise boom

        async with prompted() as (client, _):
            with pytest.raises(BoomError) as caught:
                async with as_completed(client, prompts()) as outcomes:
                    await outcomes.receive()
            assert caught.value is boom
            mine = BoomError()
            with pytest.raises(BoomError) as caught:
                async with as_completed(client, prompts()) as outcomes:
                    await outcomes.receive()
                    raise mine
            assert caught.value is mine
            with anyio.CancelScope() as scope:
                async with as_completed(client, prompts()) as outcomes:
                    await outcomes.receive()
                    scope.cancel()
                    await checkpoint()
            assert scope.cancelled_caught

    @pytest.mark.parametrize("raises_before", [False, True])
    async def test_an_error_of_closing_the_input_at_its_end(self, raises_before: bool) -> None:
        boom = BoomError("closing")

        class Closing(Generator[str, None, None]):
            """A Generator whose `close` fails."""

            left = 3
            closed = 0

            def send(self, value: None) -> str:
                self.left -= 1
                if self.left < 0:
                    raise BoomError("pulling") if raises_before else StopIteration
                return str(self.left)

            def throw(self, *error: Any) -> Any:
                raise NotImplementedError

            def close(self) -> None:
                self.closed += 1
                raise boom

        async with prompted() as (client, _):
            prompts = Closing()
            outcomes = await gather(client, prompts)
            assert prompts.closed == 1
            assert [o.unwrap().text for o in outcomes[:3]] == ["2", "1", "0"]
            (last,) = outcomes[3:]
            assert (last.index, last.prompt) == (3, None)
            assert str(last.error) == ("pulling" if raises_before else "closing")
            async with fan_out(client, Closing()) as events:
                failed = [event async for event in events if isinstance(event, Failed)]
                assert [(event.index, str(event.error)) for event in failed] == [
                    (3, str(last.error))
                ]
            with pytest.raises(BoomError, match=str(last.error)):
                await gather(client, Closing(), on_error="raise")

    async def test_an_exception_is_not_kept_alive_by_tasks(self) -> None:
        stop = _StopError()

        async def prompts() -> AsyncGenerator[str]:
            yield "a"
            raise stop

        async with prompted() as (client, _):
            with pytest.raises(_StopError) as caught:
                await gather(client, prompts())
            assert caught.value is stop

    async def test_a_cancellation_by_other_code_is_not_the_end(
        self, anyio_backend_name: str
    ) -> None:
        if anyio_backend_name == "trio":
            pytest.skip("requires asyncio")

        async def prompts() -> AsyncGenerator[str]:
            yield "a"
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        ended = False
        async with prompted() as (client, _):
            with pytest.raises(RuntimeError, match="cancelled by other code"):
                await gather(client, prompts())
            ended = True
        assert ended
