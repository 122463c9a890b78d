"""Broken sites, moved outputs, lines of other sites, and limits of a run."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.batch_site import batch_site, echo

from gprochat_anyio import Client, Fleet, Limiter, Retry, Timeouts
from gprochat_anyio.batch import BatchSummary, OutputError, run_batch
from gprochat_anyio.batch import _journal as journal_module
from gprochat_anyio.batch._journal import Journal
from gprochat_anyio.batch._place import Place
from gprochat_anyio.testing import Drop, Hang, Refuse, Request, Say, Script

BOUND = 20.0
NOWHERE = "http://127.0.0.1:9"

posix = pytest.mark.skipif(os.name == "nt", reason="an open file is neither renamed nor removed")


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "TICK", 0.001)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "replies.jsonl"


async def run(url: str, source: Any, out: Path, **options: Any) -> BatchSummary:
    with anyio.fail_after(BOUND):
        async with Client(url, trust_env=False, retry=Retry(attempts=1)) as client:
            return await run_batch(client, source, out, **options)


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def content(path: Path) -> bytes:
    return path.read_bytes()


def prompts(count: int) -> list[str]:
    return [f"{number}" for number in range(count)]


class TestGivesUp:
    async def test_on_an_unreachable_site_without_recording_failures(self, out: Path) -> None:
        summary = await run(NOWHERE, prompts(50), out, give_up_after=5, max_at_once=2)
        assert summary.gave_up is not None
        assert summary.gave_up.startswith("5 prompts in a row got no reply, the last one because ")
        assert "SiteConnectionError: " in summary.gave_up
        assert not summary.complete
        assert (summary.answered, summary.failed) == (0, 0)
        assert 5 <= summary.in_flight <= 10
        assert written(out) == []
        async with batch_site() as site:
            assert (await run(site.url, prompts(50), out, site=NOWHERE)).all_answered
        assert len(written(out)) == 50

    async def test_on_a_site_that_returns_only_errors(self, out: Path) -> None:
        async with batch_site(lambda _: Refuse(503, "down")) as site:
            summary = await run(site.url, prompts(50), out, give_up_after=5, max_at_once=1)
            assert summary.gave_up is not None
            assert "SiteError: " in summary.gave_up
            assert summary.failed == len(written(out)) == len(site.asked) <= 7

    @pytest.mark.parametrize("status", [401, 429])
    async def test_on_a_site_that_refuses_all_requests(self, out: Path, status: int) -> None:
        async with batch_site(lambda _: Refuse(status, "no")) as site:
            summary = await run(site.url, prompts(50), out, give_up_after=3, adaptive=False)
        assert summary.gave_up is not None
        assert written(out) == []

    async def test_on_a_silent_site_after_recording_failures(self, out: Path) -> None:
        async with batch_site(lambda _: Hang()) as site:
            summary = await run(
                site.url,
                prompts(9),
                out,
                give_up_after=3,
                timeouts=Timeouts(first_chunk=0.02),
                max_at_once=1,
            )
        assert summary.gave_up is not None
        assert "RequestTimeoutError" in summary.gave_up
        assert len(written(out)) == summary.failed >= 3, "the site has read them"

    @pytest.mark.parametrize("response", [Refuse(400, "long"), [Say("half"), Drop()]])
    async def test_never_on_a_site_that_works(self, out: Path, response: Script) -> None:
        async with batch_site(lambda _: response) as site:
            summary = await run(site.url, prompts(9), out, give_up_after=3)
        assert (summary.gave_up, summary.failed, summary.complete) == (None, 9, True)

    async def test_never_between_replies(self, out: Path) -> None:
        def some(request: Request) -> Script:
            return echo(request) if int(request.prompt) % 3 == 2 else Refuse(503, "no")

        async with batch_site(some) as site:
            summary = await run(site.url, prompts(9), out, give_up_after=3, max_at_once=1)
        assert (summary.gave_up, summary.failed, summary.answered) == (None, 6, 3)

    @pytest.mark.parametrize("ending", [echo, lambda _: Refuse(400, "no"), None])
    async def test_failures_that_were_held_back_are_recorded(
        self, out: Path, ending: Callable[[Request], Script] | None
    ) -> None:
        """Record them once a response shows that the site works, or at the end of the source."""

        def some(request: Request) -> Script:
            if request.prompt == "2" and ending is not None:
                return ending(request)
            return Refuse(429, "no")

        async with batch_site(some) as site:
            summary = await run(
                site.url, prompts(3), out, give_up_after=9, max_at_once=1, adaptive=False
            )
        assert summary.complete
        assert [line["index"] for line in written(out)] == [0, 1, 2]

    async def test_never_without_a_limit(self, out: Path) -> None:
        summary = await run(NOWHERE, prompts(120), out, give_up_after=None)
        assert (summary.gave_up, summary.failed, summary.complete) == (None, 120, True)

    async def test_after_a_hundred_by_default(self, out: Path) -> None:
        summary = await run(NOWHERE, prompts(150), out)
        assert summary.gave_up is not None
        assert summary.gave_up.startswith("100 ")

    @pytest.mark.parametrize("name", ["give_up_after", "limit"])
    @pytest.mark.parametrize("value", [0, -1, 1.5])
    async def test_arguments(self, out: Path, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1, or None"):
            await run(NOWHERE, ["one"], out, **{name: value})


class TestLimit:
    async def test_each_run_asks_at_most_that_many(self, out: Path) -> None:
        async with batch_site() as site:
            items = ["", *prompts(5)]
            summary = await run(site.url, items, out, limit=2)
            assert (summary.answered, summary.limit_reached, summary.complete) == (2, True, False)
            assert len(site.asked) == 2
            await run(site.url, items, out, limit=2)
            assert len(site.asked) == 4
            summary = await run(site.url, items, out, limit=2)
            assert (summary.answered, summary.limit_reached, summary.complete) == (1, False, True)
        assert len(written(out)) == 6


class TestOtherSites:
    async def test_are_counted_and_accepted_with_any_site(self, out: Path) -> None:
        items = ["one", "two", "two", "fail", ""]
        async with batch_site(lambda r: Refuse(400, "no") if r.prompt == "fail" else "x") as site:
            await run(site.url, items, out)
            before = content(out)
            other = f"{site.url}/"
            moved = other.replace("127.0.0.1", "localhost").rstrip("/")
            summary = await run(moved, items, out, any_site=True)
            assert (summary.answered_before, summary.failed_before) == (3, 2)
            assert summary.all_answered is False
            assert content(out) == before
            assert summary.other_sites == {site.url: 5}
            await run(moved, items, out, any_site=True, retry_failed=True)
            assert len(written(out)) == 5, "the lines of failures were replaced"
            assert site.counts == {"one": 1, "two": 2, "fail": 2}
            summary = await run(moved, items, out)
            assert summary.other_sites == {site.url: 3}
            assert (summary.answered, summary.failed_before) == (3, 2)

    async def test_a_fleet_is_one_site(self, out: Path) -> None:
        async with batch_site() as site:
            async with Fleet([Client(site.url, trust_env=False)]) as fleet:
                await run_batch(fleet, ["one"], out)
            summary = await run(site.url, ["one"], out)
        assert summary.other_sites == {}
        assert summary.answered_before == 1


class TestRetries:
    async def test_keep_lines_of_removed_prompts(self, out: Path) -> None:
        async with batch_site(lambda _: Refuse(400, "no")) as site:
            await run(site.url, ["one", "two", "two", "three"], out)
            site.answer = echo
            summary = await run(site.url, ["two", "three"], out, retry_failed=True)
        assert summary.all_answered
        texts_left = Counter(line.get("text") for line in written(out))
        assert texts_left == {None: 2, "re: two": 1, "re: three": 1}
        assert not any("retried" in line for line in written(out))

    async def test_that_are_cancelled_keep_the_failure(self, out: Path) -> None:
        async with batch_site(lambda _: Refuse(400, "no")) as site:
            await run(site.url, ["one"], out)
            before = content(out)
            site.answer = lambda _: Hang()
            with anyio.move_on_after(0.1):
                await run(site.url, ["one"], out, retry_failed=True)
        assert content(out) == before


class TestAdaptive:
    @pytest.mark.parametrize("adaptive", [True, False])
    async def test_reaches_the_limiter(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, adaptive: bool
    ) -> None:
        made: list[dict[str, Any]] = []

        class Recorded(Limiter):
            def __init__(self, **settings: Any) -> None:
                made.append(settings)
                super().__init__(**settings)

        monkeypatch.setattr("gprochat_anyio.batch._run.Limiter", Recorded)
        async with batch_site() as site:
            await run(site.url, ["one"], out, adaptive=adaptive)
        assert made == [{"max_at_once": 16, "max_per_second": None, "adaptive": adaptive}]


ENDED = "the run has ended"
RECORDED = {"re: one", "re: two"}


def names_in(folder: Path, pattern: str = "*") -> list[str]:
    return [path.name for path in folder.glob(pattern)]


def texts(out: Path) -> set[str]:
    return {line["text"] for line in written(out)}


async def test_a_given_limiter_is_used(out: Path) -> None:
    limiter = Limiter(max_at_once=2)
    running = []

    def respond(request: Request) -> Script:
        running.append(limiter.statistics().running)
        return echo(request)

    async with batch_site(respond) as site:
        assert (await run(site.url, prompts(9), out, limiter=limiter)).all_answered
    assert set(running) <= {1, 2}


@posix
class TestSink:
    """Outputs that are moved or removed during a run: no line is lost, and the error says where."""

    async def lost(self, out: Path, lose: Callable[[], object], **options: Any) -> str:
        """Run a batch whose output is lost after the second reply. Return the error's message."""

        async def items() -> AsyncIterator[str]:
            yield "one"
            yield "two"
            while len(written(out)) < 2:  # noqa: ASYNC110 - a file sets no event
                await anyio.sleep(0.001)
            lose()
            yield "three"
            await anyio.sleep_forever()

        async with batch_site() as site:
            with pytest.raises(OutputError) as caught:
                await run(site.url, items(), out, **options)
            assert not names_in(out.parent, ".*"), "the lock file is removed"
        return str(caught.value)

    async def test_renamed(self, out: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        said = await self.lost(out, lambda: out.rename(elsewhere))
        assert said == f"{out} was moved; all its lines are in the file that was moved; " + ENDED
        assert texts(elsewhere) >= RECORDED
        assert names_in(tmp_path) == ["elsewhere"]

    async def test_removed(self, out: Path) -> None:
        said = await self.lost(out, out.unlink)
        assert said == f"{out} was removed or replaced; all its lines were saved in {out}; {ENDED}"
        assert texts(out) >= RECORDED

    async def test_removed_with_its_folder(self, tmp_path: Path) -> None:
        out = tmp_path / "folder" / "out"
        out.parent.mkdir()

        def remove() -> None:
            for path in out.parent.iterdir():
                path.unlink()
            out.parent.rmdir()

        await self.lost(out, remove)
        assert texts(out) >= RECORDED

    async def test_replaced(self, out: Path, tmp_path: Path) -> None:
        (tmp_path / "replies.jsonl.saved").write_text("another")

        def replace() -> None:
            (tmp_path / "new").write_text("new")
            (tmp_path / "new").replace(out)

        said = await self.lost(out, replace)
        saved = tmp_path / "replies.jsonl.saved-2"
        assert f"saved in {saved}" in said
        assert texts(saved) >= RECORDED
        assert content(out) == b"new"

    @pytest.mark.parametrize("removed", [True, False])
    def test_lines_put_after_the_loss_are_saved(self, tmp_path: Path, removed: bool) -> None:
        path, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
        journal = Journal(path, sync_every=1)
        journal.open()
        journal.put(b"one\n")
        if removed:
            path.unlink()
        else:
            path.rename(elsewhere)
        with pytest.raises(OutputError, match="moved or removed while it was written"):
            journal._write(True)
        journal.put(b"two\n")
        with pytest.raises(OutputError, match="all its lines"):
            journal.close()
        journal.close()
        assert (path if removed else elsewhere).read_bytes() == b"one\ntwo\n"

    def test_is_not_checked_where_a_file_system_renumbers_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "out"
        with path.open("w+b") as file:
            with monkeypatch.context() as patch:
                patch.setattr(os.path, "samestat", lambda *_: False)
                place = Place(str(path), file.fileno())
            path.unlink()
            assert not place.is_lost()


class TestProgress:
    async def test_shows_the_reason_for_waiting(self, out: Path) -> None:
        go_on = anyio.Event()
        seen: list[BatchSummary] = []
        stop = anyio.Event()

        async def items() -> AsyncIterator[str]:
            yield "fail"
            yield "held"
            await anyio.sleep_forever()

        def respond(request: Request) -> Script:
            if request.prompt == "fail":
                return Refuse(400, "no")
            return go_on.wait, Say("x")

        def watch(summary: BatchSummary) -> None:
            seen.append(summary)
            if summary.waiting_for == "site" and summary.failed:
                go_on.set()
            if summary.waiting_for == "input" and summary.answered:
                stop.set()

        async with batch_site(respond) as site:
            await run(site.url, items(), out, on_progress=watch, stop=stop)
        assert {"site", "input"} <= {s.waiting_for for s in seen}
        assert seen[-1].waiting_for is None
        assert seen[-1].last_error is not None
        assert seen[-1].last_error.startswith("SiteError: ")
        assert all(s.silent >= 0 for s in seen)

    async def test_shows_a_rate_limit_and_a_full_output(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: set[str | None] = set()
        refused: list[Request] = []

        def respond(request: Request) -> Script:
            if not refused:
                refused.append(request)
                return Refuse(429, "later", retry_after=1)
            return "x"

        def watch(summary: BatchSummary) -> None:
            seen.add(summary.waiting_for)

        monkeypatch.setattr("gprochat_anyio.batch._runner.REPORT_EVERY", 0.01)
        async with batch_site(respond) as site:
            await run(site.url, ["one"], out, on_progress=watch)
            assert "rate limit" in seen
            monkeypatch.setattr("gprochat_anyio.batch._journal._MOST_UNWRITTEN", 10)
            monkeypatch.setattr("gprochat_anyio.batch._journal.TICK", 0.1)
            await run(site.url, ["two", "three"], out, on_progress=watch)
            assert "output" in seen


async def test_stop_while_giving_up(out: Path) -> None:
    stop = anyio.Event()
    stop.set()
    summary = await run(NOWHERE, prompts(5), out, give_up_after=1, stop=stop)
    assert not summary.complete
