"""Fleet on real event loops: arguments, errors, closing, events, and all that takes a fleet."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import random
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import LOOPS
from prompted import closed, pool_of

from gprochat_anyio import (
    Client,
    Conversation,
    Failed,
    Finished,
    Fleet,
    GPROChatError,
    InvalidPromptError,
    Outcome,
    Retry,
    SiteConnectionError,
    SiteError,
    SyncClient,
    Timeouts,
    fan_out,
    gather,
    race,
)
from gprochat_anyio._fleet.member import Member
from gprochat_anyio._fleet.retry_budget import RetryBudget
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.batch import run_batch
from gprochat_anyio.site import Turn
from gprochat_anyio.site.models import GPROChatModel
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Injection,
    Pause,
    Refuse,
    Reply,
    Say,
    ScriptedSite,
    cancelled,
    injections,
    live_site,
    scripted_site,
)

FAILS = Refuse(500, "no")

Fleets = tuple[Any, list[ScriptedSite]]
"""A fleet, and its sites."""


@asynccontextmanager
async def fleet_of(*replies: Reply | tuple[Reply, ...], **settings: Any) -> AsyncIterator[Fleets]:
    with anyio.fail_after(30):
        async with AsyncExitStack() as stack:
            sites: list[ScriptedSite] = []
            for reply in replies:
                several: Any = reply if isinstance(reply, tuple) else (reply,)
                sites.append(await stack.enter_async_context(live_site(*several)))
            # quick, where a site says no again and again
            retry = Retry(backoff=0.01, backoff_max=0.01)
            fleet = Fleet([site.client(retry=retry) for site in sites], **settings)
            yield await stack.enter_async_context(fleet), sites


class TestArguments:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("clients", []),
            ("clients", ["https://a.example.org"]),
            ("clients", None),
            ("eject_after", 0),
            ("eject_after", True),
            ("eject_after", 1.5),
            ("eject_for", 0),
            ("eject_for", math.inf),
            ("eject_for", True),
            ("eject_for", None),
            ("hedge_after", 0),
            ("hedge_after", "1"),
        ],
    )
    def test_invalid(self, argument: str, value: Any) -> None:
        arguments: dict[str, Any] = {"clients": [Client("http://127.0.0.1:1")], argument: value}
        with pytest.raises(ValueError, match=rf"^{argument} "):
            Fleet(arguments.pop("clients"), **arguments)

    def test_a_client_twice_and_a_fleet(self) -> None:
        client = Client("http://127.0.0.1:1")
        with pytest.raises(ValueError, match=r"^clients must differ"):
            Fleet([client, client])
        with pytest.raises(ValueError, match=r"^clients must be"):
            Fleet([Fleet([client])])  # type: ignore[list-item]

    def test_what_it_shows(self) -> None:
        clients = [Client(f"https://{name}.example.org") for name in "ba"]
        fleet = Fleet(clients)
        assert fleet.clients == tuple(clients)
        assert fleet.url == "https://a.example.org https://b.example.org"
        assert repr(fleet) == "<Fleet of https://b.example.org, https://a.example.org>"
        assert (fleet.timeouts, fleet.retry) == (clients[0].timeouts, clients[0].retry)
        assert repr(Fleet.__new__(Fleet)) == "<Fleet of nothing>"

    async def test_room_for_a_consumer_at_each(self) -> None:
        clients = [Client("http://127.0.0.1:1"), Client("http://127.0.0.1:2", max_connections=1)]
        fleet: Any = Fleet(clients)
        async with fleet:
            with pytest.raises(ValueError, match="max_connections"):
                fan_out(fleet, ["hi"])


class TestAsking:
    async def test_the_client_that_answered(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here") as (fleet, _):
            for _ in range(6):
                chunks = fleet.stream("hi")
                with pytest.raises(RuntimeError, match="async with"):
                    _ = chunks.client
                async with chunks:
                    assert await chunks.read() == "here"
                assert chunks.client is fleet.clients[1]

    async def test_stream_to(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here") as (fleet, _):
            send, receive = anyio.create_memory_object_stream[str](10)
            with receive:
                assert (await fleet.stream_to("hi", send)).text == "here"
                assert receive.receive_nowait() == "here"

    async def test_an_invalid_prompt(self) -> None:
        async with fleet_of("a") as (fleet, sites):
            with pytest.raises(InvalidPromptError):
                async with fleet.stream(" "):
                    pytest.fail("it is blank")
            with pytest.raises(InvalidPromptError):
                await fleet.ask(" ")
            assert not sites[0].requests

    async def test_one_bare_error_with_a_note_for_each_other(self) -> None:
        async with fleet_of(*[Refuse(500, f"no {n}") for n in range(3)]) as (fleet, sites):
            with pytest.raises(SiteError) as caught:
                await fleet.ask("hi")
            assert len(caught.value.__notes__) == 2
            others = [site for site in sites if site.url not in str(caught.value)]
            for note in caught.value.__notes__:
                assert any(note.startswith(f"{site.url}: SiteError: ") for site in others)
            assert caught.value.__context__ is caught.value.__cause__ is None

    async def test_a_failure_after_the_first_text_does_not_move_on(self) -> None:
        broken = [Say("a"), Drop()]
        async with fleet_of(broken, broken) as (fleet, sites):
            with pytest.raises(GPROChatError):
                async with fleet.stream("hi") as chunks:
                    await chunks.read()
            assert sum(len(site.requests) for site in sites) == 1

    async def test_attempts_of_all_endpoints(self) -> None:
        async with fleet_of(Refuse(500, "no"), Refuse(500, "no"), "here") as (fleet, sites):
            timing = (await fleet.ask("hi")).timing
            assert timing.attempts == sum(len(site.requests) for site in sites)

    async def test_no_token_and_nobody_on_the_way(self) -> None:
        async with fleet_of(Refuse(500, "no"), Refuse(500, "no")) as (fleet, sites):
            opener_of(fleet)._budget.tokens = 0
            with pytest.raises(SiteError) as caught:
                await fleet.ask("hi")
            assert caught.value.__notes__ == [
                "1 more were not asked: most requests to this Fleet fail at the moment"
            ]
            assert sum(len(site.requests) for site in sites) == 1

    async def test_no_token_for_another_round(self) -> None:
        async with fleet_of(Refuse(503, "no"), Refuse(503, "no")) as (fleet, sites):
            opener_of(fleet)._budget.tokens = 1
            with pytest.raises(SiteError) as caught:
                await fleet.ask("hi")
            assert [len(site.requests) for site in sites] == [1, 1]
            (note,) = caught.value.__notes__
            assert "SiteError" in note

    async def test_another_round(self) -> None:
        replies: tuple[Reply, ...] = (Refuse(503, "no"), "here")
        async with fleet_of(replies, replies) as (fleet, _):
            assert (await fleet.ask("hi")).timing.attempts == 3

    async def test_a_stale_connection_is_replaced_without_a_token(self) -> None:
        replies: tuple[Reply, ...] = ("first", Drop(), "again")
        async with fleet_of(replies, Hang()) as (fleet, _sites):
            member = opener_of(fleet).roster.members[1]
            member.available_at = math.inf
            opener_of(fleet)._budget.tokens = 0
            assert (await fleet.ask("hi")).text == "first"
            opener_of(fleet)._budget.tokens = 0
            reply = await fleet.ask("hi")
            assert (reply.text, reply.timing.attempts) == ("again", 2)

    async def test_a_fleet_of_one_retries_as_its_client(self) -> None:
        replies: tuple[Reply, ...] = (Refuse(503, "no"), Refuse(503, "no"), "here")
        async with fleet_of(replies, hedge_after=0.01) as (fleet, _sites):
            assert (await fleet.ask("hi")).timing.attempts == 3

    async def test_a_closed_client_is_a_mistake_of_the_program(self) -> None:
        for hedge_after in (None, 5.0):
            async with fleet_of("a", "a", hedge_after=hedge_after) as (fleet, _):
                for client in fleet.clients:
                    await client.aclose()
                with pytest.raises(RuntimeError, match="this Client is closed"):
                    await fleet.ask("hi")
                assert [state.open_replies for state in fleet.states] == [0, 0]

    async def test_passwords(self) -> None:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            open_site, locked = await enter(live_site()), await enter(live_site(password="pw"))
            async with Fleet([open_site.client(), locked.client()]) as fleet:
                assert await fleet.check_password()
            async with Fleet([open_site.client(), locked.client(password="no")]) as fleet:
                assert not await fleet.check_password()


class TestClosing:
    async def test_closes_its_clients(self) -> None:
        async with fleet_of("a", "a") as (fleet, sites):
            await gather(fleet, ["hi"] * 8)
            await fleet.aclose()
            for site in sites:
                await closed(site)
            with pytest.raises(RuntimeError, match="this Fleet is closed"):
                await fleet.ask("hi")
            with pytest.raises(RuntimeError, match="this Client is closed"):
                await fleet.clients[0].ask("hi")
            await fleet.aclose()

    async def test_the_others_if_one_fails(self) -> None:
        class Failing(httpx.AsyncBaseTransport):
            async def aclose(self) -> None:
                raise OSError("no")

        async with live_site("a") as site:
            first = Client("http://127.0.0.1:1", transport=Failing())
            fleet = Fleet([first, second := site.client()])
            await second.ask("hi")
            with pytest.raises(OSError, match="no"):
                await fleet.aclose()
            assert opener_of(second).closed
            await closed(site)

    def test_belongs_to_one_event_loop(self) -> None:
        fleet = Fleet([Client("http://127.0.0.1:1")])

        async def use() -> None:
            opener_of(fleet).check_usable()

        anyio.run(use)
        with pytest.raises(RuntimeError, match="this Fleet belongs to another event loop"):
            anyio.run(use)


async def test_events(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gprochat_anyio")
    secret = "S3CRET prompt"
    found: dict[str, Any] = {}
    async with fleet_of((FAILS, "back"), "here", eject_after=1, eject_for=0.01) as (fleet, sites):
        while fleet.states[0].error is None or fleet.states[0].state != "open":
            await fleet.ask(secret)
    async with fleet_of(Hang(), "here", hedge_after=0.01) as (fleet, hedged):
        while not hedged[0].requests:
            await fleet.ask(secret)
    for record in caplog.records:
        found.setdefault(record.__dict__["gprochat_event"], record.__dict__)
    assert found.keys() == {"fleet.ejected", "fleet.failover", "fleet.recovered", "fleet.hedge"}
    hosts = [site.url.removeprefix("http://") for site in (*sites, *hedged)]
    ejected, failover = found["fleet.ejected"], found["fleet.failover"]
    assert (ejected["gprochat_site"], ejected["gprochat_error"]) == (hosts[0], "SiteError")
    assert (ejected["gprochat_seconds"], ejected["gprochat_status"]) == (0.01, 500)
    assert (failover["gprochat_after"], failover["gprochat_site"]) == (hosts[0], hosts[1])
    assert failover["gprochat_error"] == "SiteError"
    assert found["fleet.recovered"]["gprochat_site"] == hosts[0]
    assert found["fleet.recovered"]["gprochat_seconds"] >= 0.01
    hedge = found["fleet.hedge"]
    assert (hedge["gprochat_after"], hedge["gprochat_site"]) == (hosts[2], hosts[3])
    assert "gprochat_error" not in hedge
    assert "S3CRET" not in caplog.text


@pytest.mark.parametrize("event", ["fleet.ejected", "fleet.recovered", "fleet.failover"])
async def test_a_log_that_fails_leaves_nothing_behind(event: str) -> None:
    def break_at(record: logging.LogRecord) -> bool:
        if record.__dict__["gprochat_event"] == event:
            raise LookupError("broken")
        return True

    logger = logging.getLogger("gprochat_anyio")
    logger.addFilter(break_at)
    logger.setLevel(logging.INFO)
    try:
        first = (FAILS, [Say("a"), Drop()], "back")
        async with fleet_of(first, "here", eject_after=1, eject_for=0.01) as (fleet, sites):
            while fleet.states[0].error is None or fleet.states[0].state != "open":
                with suppress(LookupError, GPROChatError):
                    await fleet.ask("hi")
            await nothing_left(fleet, sites)
    finally:
        logger.removeFilter(break_at)
        logger.setLevel(logging.NOTSET)


class TestInThePlaceOfAClient:
    async def test_fan_out(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here", "here") as (fleet, _):
            async with fan_out(fleet, ["a", "b", "c"]) as events:
                ends = [e async for e in events if isinstance(e, Finished | Failed)]
            assert len(ends) == 3
            assert all(isinstance(end, Finished) for end in ends)

    async def test_race(self) -> None:
        async with fleet_of(Hang()) as (slow, _), fleet_of("here") as (fast, _):
            async with race([slow, fast], "hi") as chunks:
                assert await chunks.read() == "here"
                assert chunks.client is fast
            async with race(fast, "hi") as chunks:
                assert await chunks.read() == "here"

    async def test_conversation(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here") as (fleet, _):
            conversation = Conversation(fleet)
            assert (await conversation.ask("hi")).text == "here"
            again = Conversation.from_json(fleet, conversation.to_json())
            assert len(again.messages) == 2
        with pytest.raises(ValueError, match=r"^client must be a Client or a Fleet"):
            Conversation("client")  # type: ignore[arg-type]

    async def test_batch(self, tmp_path: Path) -> None:
        async with fleet_of("here", "here") as (fleet, sites):
            summary = await run_batch(fleet, ["a", "b"], tmp_path / "out.jsonl")
            assert summary.all_answered
            again = Fleet([site.client() for site in reversed(sites)])  # the same keys
            async with again:
                await run_batch(again, ["a", "b"], tmp_path / "out.jsonl")
            assert sum(len(site.requests) for site in sites) == 2

    async def test_model_of_a_site(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here") as (fleet, _):
            model = GPROChatModel(fleet)
            assert [text async for text in model((Turn("user", "hi"),))] == ["here"]

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_sync_client(self, backend: Any) -> None:
        with scripted_site(Refuse(500, "no")) as a, scripted_site("here") as b:
            with SyncClient.of(Fleet([a.client(), b.client()]), backend=backend) as client:
                assert client.ask("hi").text == "here"
                assert client.check_password()
                assert [o.unwrap().text for o in client.gather(["a", "b"])] == ["here"] * 2
                assert client.conversation().ask("hi").text == "here"
                with client.stream("hi") as chunks:
                    assert "".join(chunks) == "here"
        with pytest.raises(ValueError, match=r"^client must be a Client or a Fleet"):
            SyncClient.of("https://a.example.org")  # type: ignore[arg-type]


class TestBudget:
    async def test_waits_for_those_on_the_way_only(self) -> None:
        budget = RetryBudget()
        budget.tokens = 0
        first = budget.begin()
        ends: list[int] = []

        async def take() -> None:
            ends.append(await budget.take(math.inf))

        async with anyio.create_task_group() as tg:
            tg.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            later = budget.begin()
            budget.end(first)
            await anyio.wait_all_tasks_blocked()
            assert ends == [0]
            tg.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            budget.succeed(later)
            await anyio.wait_all_tasks_blocked()
            assert ends[1] > later
        budget.end(ends[1])

    async def test_cancelled_as_it_gets_a_token(self) -> None:
        budget = RetryBudget()
        budget.tokens = 0
        first = budget.begin()
        async with anyio.create_task_group() as tg:
            tg.start_soon(budget.take, math.inf)
            await anyio.wait_all_tasks_blocked()
            tg.cancel_scope.cancel()
            budget.succeed(first)
        assert budget.tokens == 1
        assert not budget._on_way

    async def test_cancelled_while_it_waits(self) -> None:
        budget = RetryBudget()
        budget.tokens = 0
        first = budget.begin()
        with anyio.move_on_after(0.01):
            await budget.take(math.inf)
        assert not budget._waiting
        budget.succeed(first)
        assert budget.tokens == 1

    async def test_too_late(self) -> None:
        budget = RetryBudget()
        budget.tokens = 0
        number = budget.begin()
        assert await budget.take(anyio.current_time() + 0.01) == 0
        assert not budget._waiting
        budget.succeed(number)
        assert budget.tokens == 1


KINDS: dict[str, Callable[[], Reply]] = {
    "answers": lambda: "here",
    "slow": lambda: [Pause(0.01), Say("he"), Pause(0.01), Say("re")],
    "refuses": lambda: Refuse(503, "no"),
    "limits": lambda: Refuse(429, "slow", 0.01),
    "rejects": lambda: Refuse(401, "key"),
    "blames": lambda: Refuse(400, "prompt"),
    "drops": Drop,
    "breaks": lambda: [Say("he"), Drop()],
    "hangs": Hang,
}


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kinds=st.lists(
        st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    hedge_after=st.sampled_from([None, 0.005]),
    leave_after=st.sampled_from([math.inf, 0.0, 0.02]),
    seed=st.integers(0, 1000),
)
def test_one_outcome_for_each_prompt_and_nothing_left(
    loop: tuple[str, dict[str, Any]],
    kinds: list[list[str]],
    hedge_after: float | None,
    leave_after: float,
    seed: int,
) -> None:
    async def main() -> None:
        replies = [tuple(KINDS[kind]() for kind in site) for site in kinds]
        async with fleet_of(*replies, hedge_after=hedge_after, eject_for=0.05) as (fleet, sites):
            opener_of(fleet).roster._random = random.Random(seed)
            outcomes: list[Outcome] = []
            with anyio.move_on_after(leave_after) as scope:
                outcomes = await gather(
                    fleet, map(str, range(12)), max_at_once=6, timeouts=Timeouts(total=0.2)
                )
            if not scope.cancelled_caught:
                assert [outcome.index for outcome in outcomes] == list(range(12))
            await nothing_left(fleet, sites)

    backend, options = loop
    anyio.run(main, backend=backend, backend_options=options)


async def nothing_left(fleet: Fleet, sites: list[ScriptedSite]) -> None:
    budget = opener_of(fleet)._budget
    assert not budget._on_way
    assert not budget._waiting
    assert 0 <= budget.tokens <= 30
    assert [state.open_replies for state in fleet.states] == [0] * len(sites)
    for client in fleet.clients:
        available, _, waiting = pool_of(client).statistics()
        assert (available, waiting) == (1000, 0)
    await fleet.aclose()
    for site in sites:
        await closed(site)


async def test_the_last_error_is_kept_without_its_traceback() -> None:
    async with fleet_of("a") as (fleet, _):
        member = opener_of(fleet).roster.members[0]
        assert isinstance(member, Member)
        assert fleet.states[0].error is None
        refused = SiteConnectionError("no")
        member.begin(0.0).failed(refused, 0.0, is_limited=False)
        assert fleet.states[0].error is not refused  # a copy, without a traceback
        assert str(fleet.states[0].error) == "no"


@pytest.mark.parametrize("hedge_after", [None, 0.005])
@pytest.mark.parametrize(
    "replies", [(FAILS, Hang()), (FAILS, [Say("a"), Hang()]), (Hang(), [Say("a"), Hang()])]
)
async def test_cancelled_at_every_suspension(
    replies: tuple[Reply, ...], hedge_after: float | None
) -> None:
    gc.disable()
    try:
        async with fleet_of(*replies, hedge_after=hedge_after, eject_after=1000) as (fleet, sites):

            async def run() -> None:
                with anyio.move_on_after(0.02):
                    async with fleet.stream("hi") as chunks:
                        await chunks.read()

            for moment, native in injections():
                end, at = "", 0
                while end != "not reached":
                    at += 1
                    opener_of(fleet)._budget.tokens = 10
                    end = await cancelled(Injection(at, moment, native), run)
                    for client in fleet.clients:
                        available, _, waiting = pool_of(client).statistics()
                        assert (available, waiting) == (1000, 0)
                    assert [state.open_replies for state in fleet.states] == [0, 0]
                    assert not opener_of(fleet)._budget._on_way
                assert at > 2
            await nothing_left(fleet, sites)
    finally:
        gc.enable()


def test_a_request_that_other_code_cancels() -> None:
    """Natively, which asyncio alone knows."""

    async def main() -> None:
        async with fleet_of(Hang(), Hang(), hedge_after=5.0) as (fleet, sites):

            async def cancel() -> None:
                await anyio.wait_all_tasks_blocked()
                tasks = asyncio.all_tasks()
                (task,) = (task for task in tasks if task.get_name() == "gprochat_anyio fleet")
                task.cancel()

            async with anyio.create_task_group() as tg:
                tg.start_soon(cancel)
                with pytest.raises(RuntimeError, match="cancelled by other code"):
                    await fleet.ask("hi")
            await nothing_left(fleet, sites)

    anyio.run(main)


@pytest.mark.parametrize("hedge_after", [None, 0.001])
@pytest.mark.parametrize("reply", [FAILS, Drop(), [Say("a"), Drop()], Refuse(401, "key")])
async def test_no_secret_in_an_error(reply: Reply, hedge_after: float | None) -> None:
    secrets = {"secret_key": "canary-of-the-key", "password": "canary-of-the-password"}
    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(live_site(reply, strict=False)) for _ in "abc"]
        fleet = Fleet([site.client(**secrets) for site in sites], hedge_after=hedge_after)
        async with fleet:
            with pytest.raises(GPROChatError) as caught:
                await fleet.ask("canary-of-the-prompt")
            states = fleet.states
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame for frame in shown.stack if frame.filename != __file__]
    assert len(frames) > 2
    assert "canary" not in repr([frame.locals for frame in frames])
    assert "canary" not in "".join(shown.format_exception_only()) + repr(states)
