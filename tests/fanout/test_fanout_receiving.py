"""Receiving from a fan-out: checkpoints, closing, misuse."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.fan_outs import OPEN_ENDED, by_name, numbers
from support.loops import LOOPS
from support.prompted import closed, prompted
from trio.testing import assert_checkpoints

from gprochat_anyio import Chunk, Client, Message, SiteError, as_completed, fan_out, gather


class TestUse:
    async def test_receive_is_a_checkpoint_each_time_and_loses_nothing(self) -> None:
        async with prompted() as (client, _):
            async with fan_out(client, ["a"]) as events:
                for event in (Chunk(0, "a"), None, "end"):
                    await all_tasks_blocked()
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        await events.receive()
                    assert scope.cancelled_caught
                    if event == "end":
                        with pytest.raises(anyio.EndOfStream):
                            await events.receive()
                    else:
                        assert await events.receive() == event or event is None

    @pytest.mark.parametrize("anyio_backend", [LOOPS[-1]], indirect=True)
    @pytest.mark.parametrize("is_there", [True, False])
    async def test_receive_passes_trios_assertion(self, *, is_there: bool) -> None:
        async with prompted(by_name) as (client, _):
            async with fan_out(client, ["a"]) as events:
                for error in (None, None, anyio.EndOfStream, anyio.EndOfStream):
                    if is_there:
                        await all_tasks_blocked()
                    with nullcontext() if error is None else pytest.raises(error):
                        with assert_checkpoints():
                            await events.receive()
            with pytest.raises(anyio.ClosedResourceError), assert_checkpoints():
                await events.receive()
            async with fan_out(client, ["refused"], on_error="raise") as events:
                for _ in range(2):
                    with pytest.raises(SiteError), assert_checkpoints():
                        await events.receive()
                with assert_checkpoints():
                    await events.aclose()
                with pytest.raises(anyio.ClosedResourceError), assert_checkpoints():
                    await events.receive()

    async def test_entering_is_a_checkpoint(self) -> None:
        async with prompted() as (client, _):
            with anyio.CancelScope() as scope:
                scope.cancel()
                async with fan_out(client, ["a"]):
                    pytest.fail("not a checkpoint")
            assert scope.cancelled_caught

    async def test_aclose_from_another_task(self) -> None:
        async with prompted(OPEN_ENDED) as (client, site):
            async with (
                fan_out(client, numbers()) as events,
                anyio.create_task_group() as tasks,
            ):
                for _ in range(16):
                    await events.receive()
                tasks.start_soon(events.aclose)
                with pytest.raises(anyio.ClosedResourceError):
                    await events.receive()
                await closed(site)
                with pytest.raises(anyio.ClosedResourceError):
                    await events.receive()

    async def test_after_the_block(self) -> None:
        async with prompted() as (client, _):
            async with fan_out(client, ["a"]) as events:
                await events.receive()
            with pytest.raises(anyio.ClosedResourceError, match="start another"):
                await events.receive()
            with pytest.raises(RuntimeError, match="entered once"):
                async with events:
                    pass

    async def test_before_the_block(self) -> None:
        async with prompted() as (client, site):
            events = fan_out(client, ["a"])
            with pytest.raises(RuntimeError, match="async with"):
                await events.receive()
            await events.aclose()
            assert not site.requests

    async def test_two_receivers(self) -> None:
        async with prompted(OPEN_ENDED) as (client, _):
            async with fan_out(client, ["a"]) as events:
                await events.receive()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_ignore, events.receive)
                    await all_tasks_blocked()
                    with pytest.raises(anyio.BusyResourceError):
                        await events.receive()
                    tasks.cancel_scope.cancel()

    async def test_left_by_another_task(self) -> None:
        async with prompted(OPEN_ENDED) as (client, site):
            events = fan_out(client, numbers())
            await events.__aenter__()
            await events.receive()

            async def leave() -> None:
                with pytest.raises(RuntimeError, match="left by the task that entered it"):
                    await events.__aexit__(None, None, None)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave)
            await events.__aexit__(None, None, None)
            await closed(site)

    async def test_no_resource_warnings(self) -> None:
        async with prompted() as (client, _):
            fan_out(client, ["a"])
            async with fan_out(client, numbers()) as events:
                await events.receive()
            del events
        gc.collect()

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("client", None),
            ("client", []),
            ("prompts", "hello"),
            ("prompts", b"hello"),
            ("prompts", {"role": "user", "content": "hello"}),
            ("prompts", Message("user", "hello")),
            ("prompts", None),
            ("max_at_once", 0),
            ("max_at_once", True),
            ("max_at_once", 1.5),
            ("max_per_second", 0),
            ("max_per_second", -1),
            ("max_per_second", float("nan")),
            ("max_per_second", float("inf")),
            ("max_per_second", "2"),
            ("max_per_second", True),
            ("timeouts", 30),
            ("on_error", "ignore"),
            ("adaptive", 1),
        ],
    )
    async def test_bad_arguments(self, argument: str, value: Any) -> None:
        async with Client("http://127.0.0.1:1") as client:
            arguments: dict[str, Any] = {"client": client, "prompts": [], argument: value}
            for make in (fan_out, as_completed):
                with pytest.raises(ValueError, match=rf"^{argument} "):
                    make(**arguments)
            with pytest.raises(ValueError, match=rf"^{argument} "):
                await gather(**arguments)


async def _ignore(receive: Callable[[], Any]) -> None:
    await receive()
