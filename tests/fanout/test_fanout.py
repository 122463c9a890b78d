"""fan_out, as_completed and gather: order, laziness, failures, leaving the block, misuse."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import nullcontext
from typing import Any

import anyio
import pytest
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.loops import LOOPS
from support.prompted import AtOnce, closed, echo, pool_of, prompted
from trio.testing import assert_checkpoints

from gprochat_anyio import (
    Chunk,
    Client,
    Failed,
    Finished,
    GPROChatError,
    InvalidPromptError,
    Message,
    Outcome,
    ReplyInterruptedError,
    SiteError,
    as_completed,
    fan_out,
    gather,
)
from gprochat_anyio.testing import Drop, Hang, Hold, Refuse, Request, Say, Script, Step

OPEN_ENDED = (Say("one"), Hang())


class _BoomError(Exception):
    pass


class _StopError(BaseException):
    pass


def by_name(request: Request) -> Script:
    """Return the script of the failure that the prompt names."""
    if request.prompt == "refused":
        return Refuse(400, "no")
    if request.prompt == "cut":
        return Say("some"), Drop()
    if request.prompt == "endless":
        return OPEN_ENDED
    return echo(request)


def numbers() -> Iterator[str]:
    number = 0
    while True:
        yield str(number)
        number += 1


async def as_async(prompts: Any) -> AsyncGenerator[Any]:
    for prompt in prompts:
        await checkpoint()
        yield prompt


FORMS: list[Any] = [
    pytest.param(list, id="list"),
    pytest.param(iter, id="iterator"),
    pytest.param(lambda prompts: (p for p in prompts), id="generator"),
    pytest.param(as_async, id="async generator"),
]


class TestResults:
    async def test_events_of_one_index_come_in_order_and_all_of_them(self) -> None:
        prompts = [f"prompt {n}" for n in range(40)]
        texts = dict.fromkeys(range(40), "")
        ended = set()

        def slowly(request: Request) -> Iterator[Step | Hold]:
            for word in request.prompt.partition(" "):
                yield Say(word)
                yield checkpoint

        asked = AtOnce(slowly)
        async with prompted(asked) as (client, _):
            async with fan_out(client, prompts, max_at_once=4) as events:
                assert isinstance(events, ObjectReceiveStream)
                async for event in events:
                    assert event.index not in ended
                    if isinstance(event, Chunk):
                        assert event.text
                        texts[event.index] += event.text
                    else:
                        assert isinstance(event, Finished)
                        assert event.reply.text == texts[event.index] == prompts[event.index]
                        assert event.reply.timing.characters == len(prompts[event.index])
                        ended.add(event.index)
            assert len(ended) == 40
            assert asked.most <= 4

    async def test_as_they_arrive(self) -> None:
        first = anyio.Event()

        def answer(request: Request) -> Script:
            return Say("a"), *[first.wait] * (request.prompt == "slow"), Say("b")

        async with prompted(answer) as (client, _):
            async with as_completed(client, ["slow", "fast"]) as outcomes:
                assert (await outcomes.receive()).prompt == "fast"
                first.set()
                outcome = await outcomes.receive()
                assert (outcome.index, outcome.prompt) == (0, "slow")
                assert outcome.unwrap().text == "ab"
                with pytest.raises(anyio.EndOfStream):
                    await outcomes.receive()
                with pytest.raises(anyio.EndOfStream):
                    await outcomes.receive()

    @pytest.mark.parametrize("form", FORMS)
    async def test_gather_in_the_order_of_the_input(self, form: Callable[[Any], Any]) -> None:
        prompts = [str(n) for n in range(30)]
        async with prompted() as (client, site):
            outcomes = await gather(client, form(prompts), max_at_once=3)
            assert [outcome.index for outcome in outcomes] == list(range(30))
            assert [outcome.prompt for outcome in outcomes] == prompts
            assert [outcome.unwrap().text for outcome in outcomes] == prompts
            assert site.connections <= 3

    @pytest.mark.parametrize("form", FORMS)
    async def test_no_prompts(self, form: Callable[[Any], Any]) -> None:
        async with prompted() as (client, site):
            assert await gather(client, form([])) == []
            async with fan_out(client, form([])) as events:
                assert [event async for event in events] == []
            assert not site.requests

    async def test_prompts_of_every_kind(self) -> None:
        prompts: list[Any] = ["a", Message("user", "b"), [{"role": "user", "content": "c"}]]
        async with prompted() as (client, _):
            outcomes = await gather(client, prompts)
            assert [outcome.unwrap().text for outcome in outcomes] == ["a", "b", "c"]
            assert [outcome.prompt for outcome in outcomes] == prompts

    async def test_a_channel_of_prompts_is_left_open(self) -> None:
        send, receive = anyio.create_memory_object_stream[str](10)
        async with prompted() as (client, _):
            with send, receive:
                async with as_completed(client, receive) as outcomes:
                    for text in ("a", "b"):
                        await send.send(text)
                        assert (await outcomes.receive()).unwrap().text == text
                await send.send("c")
                assert receive.receive_nowait() == "c"


class TestLaziness:
    @pytest.mark.parametrize("max_at_once", [1, 4])
    @pytest.mark.parametrize("make", [fan_out, as_completed])
    @pytest.mark.parametrize("form", [iter, as_async])
    async def test_endless_inputs_are_pulled_on_demand(
        self, make: Any, form: Callable[[Any], Any], max_at_once: int
    ) -> None:
        pulled = 0

        def prompts() -> Iterator[str]:
            nonlocal pulled
            for prompt in numbers():
                pulled += 1
                yield prompt if pulled % 5 else " "

        asked = AtOnce(echo)
        async with prompted(asked) as (client, _):
            async with make(client, form(prompts()), max_at_once=max_at_once) as results:
                await all_tasks_blocked()
                assert 1 <= pulled <= max_at_once + 1
                taken = 0
                async for result in results:
                    taken += not isinstance(result, Chunk)
                    for _ in range(taken % 7):
                        await checkpoint()
                    assert pulled <= taken + max_at_once + 1
                    if taken == 40:
                        break
            assert asked.most <= max_at_once
        assert pulled >= 40

    async def test_the_input_is_advanced_and_closed_by_one_task(self) -> None:
        tasks: set[int] = set()
        closed_by: set[int] = set()

        async def prompts() -> AsyncGenerator[str]:
            try:
                while True:
                    tasks.add(anyio.get_current_task().id)
                    with anyio.CancelScope():  # must be left by the task that entered it
                        yield "a"
            finally:
                closed_by.add(anyio.get_current_task().id)

        async with prompted() as (client, _):
            async with as_completed(client, prompts(), max_at_once=3) as outcomes:
                for _ in range(20):
                    await outcomes.receive()
        assert len(tasks) == 1
        assert closed_by == tasks

    @pytest.mark.parametrize("form", FORMS[2:])
    @pytest.mark.parametrize("end", ["break", "raise", "cancel"])
    async def test_a_generator_is_closed(self, form: Callable[[Any], Any], end: str) -> None:
        async with prompted() as (client, _):
            generator = form(numbers())
            with anyio.CancelScope() as scope:
                try:
                    async with fan_out(client, generator) as events:
                        async for _ in events:
                            if end == "break":
                                break
                            if end == "raise":
                                raise _BoomError  # noqa: TRY301
                            scope.cancel()
                except _BoomError:
                    assert end == "raise"
            if isinstance(generator, AsyncGenerator):
                with pytest.raises(StopAsyncIteration):
                    await anext(generator)
            else:
                assert generator.gi_frame is None

    async def test_one_fan_out_feeds_another(self) -> None:
        async with prompted() as (client, site):

            async def follow_ups() -> AsyncGenerator[str]:
                async with as_completed(client, numbers(), max_at_once=2) as outcomes:
                    async for outcome in outcomes:
                        yield f"and {outcome.unwrap().text}"

            texts = set()
            async with as_completed(client, follow_ups(), max_at_once=2) as outcomes:
                async for outcome in outcomes:
                    texts.add(outcome.unwrap().text)
                    if len(texts) == 10:
                        break
            assert {f"and {n}" for n in range(5)} <= texts
            await client.aclose()
            await closed(site)

    async def test_a_slow_caller_slows_the_replies(self) -> None:
        sent = 0

        def flood(request: Request) -> Iterator[Step | Hold]:
            nonlocal sent
            for _ in range(300):
                yield Say("x" * 60_000)
                sent += 1
            yield Hang()

        async with prompted(flood) as (client, _):
            async with fan_out(client, numbers(), max_at_once=3) as events:
                await events.receive()
                before = -1
                while before != sent:
                    before = sent
                    for _ in range(100):
                        await checkpoint()
                assert sent < 3 * 200  # the rest is in the kernel's socket buffers
                for _ in range(50):
                    await events.receive()


class TestFailures:
    async def test_collected(self) -> None:
        prompts: list[Any] = ["fine", "refused", " ", "cut", 5, "fine"]
        async with prompted(by_name) as (client, _):
            outcomes = await gather(client, prompts)
            assert [type(o.error) for o in outcomes] == [
                type(None),
                SiteError,
                InvalidPromptError,
                ReplyInterruptedError,
                InvalidPromptError,
                type(None),
            ]
            assert [outcome.prompt for outcome in outcomes] == prompts
            assert isinstance(outcomes[3].error, ReplyInterruptedError)
            assert outcomes[3].error.partial_text == "some"
            for outcome in outcomes:
                assert (outcome.reply is None) == (outcome.error is not None)
                if outcome.error is not None:
                    assert outcome.error.__traceback__ is None
                    assert outcome.error.__context__ is None
                    with pytest.raises(type(outcome.error)) as caught:
                        outcome.unwrap()
                    assert caught.value is outcome.error

    async def test_events_of_failures_are_the_last_of_their_index(self) -> None:
        seen: dict[int, list[type]] = {}
        async with prompted(by_name) as (client, _):
            async with fan_out(client, ["cut", " ", "refused", "fine"]) as events:
                async for event in events:
                    seen.setdefault(event.index, []).append(type(event))
                    if event.index == 0 and isinstance(event, Failed):
                        assert isinstance(event.error, ReplyInterruptedError)
                        assert event.error.partial_text == "some"
        assert seen == {0: [Chunk, Failed], 1: [Failed], 2: [Failed], 3: [Chunk, Finished]}

    @pytest.mark.parametrize("way", ["fan_out", "as_completed", "gather"])
    @pytest.mark.parametrize(("bad", "kind"), [("refused", SiteError), (" ", InvalidPromptError)])
    async def test_raised(self, way: str, bad: str, kind: type[GPROChatError]) -> None:
        async with prompted(by_name) as (client, site):
            with pytest.raises(kind) as caught:
                prompts = ["endless", "endless", bad, *["endless"] * 50]
                if way == "gather":
                    await gather(client, prompts, on_error="raise")
                elif way == "fan_out":
                    async with fan_out(client, prompts, on_error="raise") as events:
                        async for event in events:
                            assert isinstance(event, Chunk)
                else:
                    async with as_completed(client, prompts, on_error="raise") as outcomes:
                        await outcomes.receive()
            assert caught.value.__notes__ == ["This was prompt 2 of a fan-out."]
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
            await client.aclose()
            await closed(site)
            assert len(site.requests) <= 18

    async def test_nothing_is_pulled_after_the_failure(self) -> None:
        pulled = []

        def prompts() -> Iterator[str]:
            for prompt in ("a", " ", "b", "c", "d"):
                pulled.append(prompt)
                yield prompt

        async with prompted(by_name) as (client, _):
            with pytest.raises(InvalidPromptError):
                await gather(client, prompts(), on_error="raise")
        assert pulled == ["a", " "]

    @pytest.mark.parametrize("bad", ["refused canary", "closed"])
    async def test_no_prompt_in_a_traceback(self, bad: str) -> None:
        async with prompted(Refuse(400, "no")) as (client, _):
            if bad == "closed":
                await client.aclose()
            with pytest.raises((SiteError, RuntimeError)) as caught:
                await gather(client, ["canary", bad], on_error="raise")
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        ours = [frame for frame in shown.stack if "gprochat_anyio" in frame.filename]
        assert ours
        assert "canary" not in str([frame.locals for frame in ours])

    async def test_raised_after_earlier_results_and_again(self) -> None:
        async with prompted(by_name) as (client, _):
            async with fan_out(client, ["cut"], on_error="raise") as events:
                assert await events.receive() == Chunk(0, "some")
                for _ in range(2):
                    with pytest.raises(ReplyInterruptedError) as caught:
                        await events.receive()
                    assert caught.value.partial_text == "some"

    @pytest.mark.parametrize("form", FORMS[1:])
    async def test_of_the_input(self, form: Callable[[Any], Any]) -> None:
        boom = _BoomError()
        more = anyio.Event()

        def answer(request: Request) -> Script:
            return Say(request.prompt), more.wait

        def prompts() -> Iterator[str]:
            yield "a"
            yield "b"
            raise boom

        async with prompted(answer) as (client, _):
            async with as_completed(client, form(prompts())) as outcomes:
                outcome = await outcomes.receive()
                assert (outcome.index, outcome.prompt) == (2, None)
                assert outcome.error is boom
                more.set()  # the running requests complete
                rest = [outcome async for outcome in outcomes]
            assert {(o.index, o.unwrap().text) for o in rest} == {(0, "a"), (1, "b")}

            with pytest.raises(_BoomError) as caught:
                await gather(client, form(prompts()), on_error="raise")
            assert caught.value is boom
            assert caught.value.__notes__ == ["This was prompt 2 of a fan-out."]

    async def test_of_an_input_whose_iter_fails(self) -> None:
        class Broken:
            def __iter__(self) -> Iterator[str]:
                raise boom

        boom = _BoomError()
        async with prompted() as (client, _):
            assert await gather(client, Broken()) == [Outcome(index=0, prompt=None, error=boom)]

    async def test_of_the_program_are_raised_bare(self) -> None:
        boom = _BoomError()

        class Broken(list[Any]):
            def __iter__(self) -> Iterator[Any]:
                raise boom

        async with prompted(by_name) as (client, site):
            with pytest.raises(_BoomError) as caught:
                await gather(client, ["endless", Broken()])
            assert caught.value is boom
            await client.aclose()
            await closed(site)
            with pytest.raises(RuntimeError, match="this Client is closed"):
                await gather(client, ["a", "b"])


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
        boom = _BoomError()
        async with prompted(OPEN_ENDED) as (client, site):
            for cancelled in (False, True):
                with pytest.raises(_BoomError) as caught, anyio.CancelScope() as scope:
                    async with fan_out(client, numbers()) as events:
                        await events.receive()
                        if cancelled:
                            scope.cancel()
                        raise boom
                assert caught.value is boom
                assert caught.value.__context__ is None
                await closed(site)

    async def test_the_callers_group_is_not_wrapped(self) -> None:
        group = ExceptionGroup("mine", [_BoomError()])
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
        boom = _BoomError()

        async def prompts() -> AsyncGenerator[str]:
            try:
                while True:
                    yield "a"
            finally:
                raise boom

        async with prompted() as (client, _):
            with pytest.raises(_BoomError) as caught:
                async with as_completed(client, prompts()) as outcomes:
                    await outcomes.receive()
            assert caught.value is boom
            mine = _BoomError()
            with pytest.raises(_BoomError) as caught:
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
        boom = _BoomError("closing")

        class Closing(Generator[str, None, None]):
            """A Generator whose `close` fails."""

            left = 3
            closed = 0

            def send(self, value: None) -> str:
                self.left -= 1
                if self.left < 0:
                    raise _BoomError("pulling") if raises_before else StopIteration
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
            with pytest.raises(_BoomError, match=str(last.error)):
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
