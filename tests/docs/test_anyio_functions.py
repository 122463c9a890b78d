"""AnyIO's `gather`, `as_completed` and `amap` behave as docs/how-to/fan-out.md describes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import anyio
import pytest
from anyio.lowlevel import checkpoint
from packaging.requirements import Requirement
from packaging.version import Version
from support.embedded_site import ROOT
from support.loops import virtual
from support.prompted import echo, prompted

from gprochat_anyio import InvalidPromptError, RequestTimeoutError, Timeouts, gather
from gprochat_anyio.testing import Pause, Request, Say, Script, scripted_site

PROMPTS = [f"{n}" for n in range(20)]


async def test_results_are_in_the_order_of_the_input() -> None:
    async with prompted(echo) as (client, _):
        one, two = await anyio.gather(client.ask("one"), client.ask("two"))
        assert (one.text, two.text) == ("one", "two")
        assert [reply.text for reply in await anyio.amap(client.ask, PROMPTS)] == PROMPTS


async def test_all_run_at_once() -> None:
    release = anyio.Event()
    running = 0

    async def run(_: str) -> None:
        nonlocal running
        running += 1
        if running == len(PROMPTS):
            release.set()
        await release.wait()

    with anyio.fail_after(5):
        await anyio.amap(run, PROMPTS)
        release, running = anyio.Event(), 0
        await anyio.gather(*map(run, PROMPTS))
        release, running = anyio.Event(), 0
        async with anyio.as_completed(*map(run, PROMPTS)) as handles:
            assert len([handle async for handle in handles]) == len(PROMPTS)


async def test_amap_reads_its_input_to_the_end_before_any_task_runs() -> None:
    log: list[str] = []

    def prompts() -> Iterator[str]:
        for prompt in PROMPTS:
            log.append("read")
            yield prompt

    async def run(_: str) -> None:
        log.append("run")
        await checkpoint()

    await anyio.amap(run, prompts())
    assert log == ["read"] * len(PROMPTS) + ["run"] * len(PROMPTS)


async def test_the_channel_of_as_completed_has_room_for_every_handle() -> None:
    async with prompted(echo) as (client, _):
        async with anyio.as_completed(*map(client.ask, PROMPTS)) as handles:
            assert handles.statistics().max_buffer_size == len(PROMPTS)
            with anyio.fail_after(5):
                while handles.statistics().current_buffer_used < len(PROMPTS):
                    await checkpoint()  # the consumer takes nothing, and every request completes
            found = [handle.return_value.text async for handle in handles]
    assert sorted(found) == sorted(PROMPTS)


async def test_as_completed_requires_an_awaitable() -> None:
    with pytest.raises(ValueError, match="at least one"):
        async with anyio.as_completed():
            pass


async def test_the_first_failure_cancels_the_others_and_is_raised_in_a_group() -> None:
    async with prompted(echo) as (client, _):
        cancelled: list[str] = []

        async def ask(prompt: str) -> None:
            try:
                await client.ask(prompt)
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                cancelled.append(prompt)
                raise

        async def complete() -> None:
            async with anyio.as_completed(ask("one"), ask(" ")):
                await ask("the body")

        for run in (
            lambda: anyio.gather(ask("one"), ask(" ")),
            lambda: anyio.amap(ask, ["one", " "]),
        ):
            with anyio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
                await run()
            assert [type(error) for error in caught.value.exceptions] == [InvalidPromptError]
        with anyio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
            await complete()
        assert [type(error) for error in caught.value.exceptions] == [InvalidPromptError]
        assert sorted(cancelled) == ["one", "one", "one", "the body"]


@virtual
async def test_total_runs_while_requests_wait_for_a_connection() -> None:
    """In a fan-out it does not: a prompt's deadlines start when its request does."""

    def slowly(request: Request) -> Script:
        return [Pause(10), Say(request.prompt)]

    async with scripted_site(slowly) as site:
        async with site.client(max_connections=1, timeouts=Timeouts(total=35)) as client:
            with pytest.raises(ExceptionGroup) as caught:
                await anyio.amap(client.ask, PROMPTS[:5])
            assert {type(error) for error in caught.value.exceptions} == {RequestTimeoutError}
            outcomes = await gather(client, PROMPTS[:5], max_at_once=1)
            assert [outcome.unwrap().text for outcome in outcomes] == PROMPTS[:5]


def test_the_minimum_anyio_version_has_them() -> None:
    """AnyIO 4.15.0 added them, according to its release notes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (anyio_,) = [r for r in map(Requirement, project["dependencies"]) if r.name == "anyio"]
    (floor,) = anyio_.specifier
    assert floor.operator == ">="
    assert Version(floor.version) >= Version("4.15")
