"""A fleet is accepted wherever a client is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from support.fleets import fleet_of

from gprochat_anyio import (
    Client,
    Conversation,
    Failed,
    Finished,
    Fleet,
    SyncClient,
    as_completed,
    fan_out,
    gather,
    race,
)
from gprochat_anyio.batch import run_batch
from gprochat_anyio.site import serve
from gprochat_anyio.testing import Hang, Refuse, scripted_site


class TestIsAccepted:
    async def test_by_fan_out(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here", "here") as (fleet, _):
            async with fan_out(fleet, ["a", "b", "c"]) as events:
                ends = [e async for e in events if isinstance(e, Finished | Failed)]
            assert len(ends) == 3
            assert all(isinstance(end, Finished) for end in ends)

    async def test_by_as_completed_and_gather(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here", "here") as (fleet, _):
            async with as_completed(fleet, ["a", "b", "c"]) as outcomes:
                found = [(o.index, o.unwrap().text) async for o in outcomes]
            assert sorted(found) == [(0, "here"), (1, "here"), (2, "here")]
            assert [o.unwrap().text for o in await gather(fleet, ["a", "b"])] == ["here"] * 2

    async def test_by_race(self) -> None:
        async with fleet_of(Hang()) as (slow, _), fleet_of("here") as (fast, _):
            async with race([slow, fast], "hi") as chunks:
                assert await chunks.read() == "here"
                assert chunks.client is fast
            async with race(fast, "hi") as chunks:
                assert await chunks.read() == "here"

    async def test_by_a_conversation(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here") as (fleet, _):
            conversation = Conversation(fleet)
            assert (await conversation.ask("hi")).text == "here"
            again = Conversation.from_json(fleet, conversation.to_json())
            assert len(again.messages) == 2
        with pytest.raises(ValueError, match=r"^client must be a Client or a Fleet"):
            Conversation("client")  # type: ignore[arg-type]

    async def test_by_a_batch(self, tmp_path: Path) -> None:
        async with fleet_of("here", "here") as (fleet, sites):
            summary = await run_batch(fleet, ["a", "b"], tmp_path / "out.jsonl")
            assert summary.all_answered
            again = Fleet([site.client() for site in reversed(sites)])  # the same keys
            async with again:
                await run_batch(again, ["a", "b"], tmp_path / "out.jsonl")
            assert sum(len(site.requests) for site in sites) == 2

    async def test_by_the_embedded_site_as_its_model(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here") as (fleet, sites):
            async with anyio.create_task_group() as tg:
                url = await tg.start(serve, fleet)
                async with Client(url) as client:
                    for _ in range(3):
                        assert (await client.ask("hi")).text == "here"
                tg.cancel_scope.cancel()
            assert (await fleet.ask("hi")).text == "here"  # the site has not closed it
            assert len(sites[1].requests) == 4

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_by_a_sync_client(self, backend: Any) -> None:
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
