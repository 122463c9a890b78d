"""Failures of replies, of the input and of the program, collected or raised."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from support.exceptions import BoomError
from support.fan_outs import FORMS, by_name
from support.prompted import closed, prompted

from gprochat_anyio import (
    Chunk,
    Failed,
    Finished,
    GPROChatError,
    InvalidPromptError,
    Outcome,
    ReplyInterruptedError,
    SiteError,
    as_completed,
    fan_out,
    gather,
)
from gprochat_anyio.testing import Refuse, Request, Say, Script


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
        boom = BoomError()
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

            with pytest.raises(BoomError) as caught:
                await gather(client, form(prompts()), on_error="raise")
            assert caught.value is boom
            assert caught.value.__notes__ == ["This was prompt 2 of a fan-out."]

    async def test_of_an_input_whose_iter_fails(self) -> None:
        class Broken:
            def __iter__(self) -> Iterator[str]:
                raise boom

        boom = BoomError()
        async with prompted() as (client, _):
            assert await gather(client, Broken()) == [Outcome(index=0, prompt=None, error=boom)]

    async def test_of_the_program_are_raised_bare(self) -> None:
        boom = BoomError()

        class Broken(list[Any]):
            def __iter__(self) -> Iterator[Any]:
                raise boom

        async with prompted(by_name) as (client, site):
            with pytest.raises(BoomError) as caught:
                await gather(client, ["endless", Broken()])
            assert caught.value is boom
            await client.aclose()
            await closed(site)
            with pytest.raises(RuntimeError, match="this Client is closed"):
                await gather(client, ["a", "b"])
