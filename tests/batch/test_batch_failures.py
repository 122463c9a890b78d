"""Failures during a run of `run_batch`, and its progress."""

from __future__ import annotations

import io
from pathlib import Path

import anyio
import pytest
from support.batch_runs import Held, jsonl, run, some_fail, texts, written
from support.batch_site import batch_site

from gprochat_anyio import GPROChatError, Timeouts
from gprochat_anyio.batch import BatchSummary
from gprochat_anyio.batch._journal import Journal
from gprochat_anyio.testing import Hang, Request, Say, Script

pytestmark = pytest.mark.usefixtures("quick_ticks")


class TestFailures:
    async def test_are_recorded_with_their_partial_text(self, out: Path) -> None:
        def cut(request: Request) -> Script:
            return [Say("half"), Hang()] if request.prompt == "cut" else some_fail(request)

        async with batch_site(cut) as site:
            limits = Timeouts(idle=0.05)
            summary = await run(site, ["cut", "fail"], out, timeouts=limits)
        first, second = written(out)
        assert first["error"]["type"] == "RequestTimeoutError"
        assert first["error"]["partial_text"] == "half"
        assert second["error"]["type"] == "SiteError"
        assert summary.failures == {"RequestTimeoutError": 1, "SiteError": 1}
        assert summary.latency is None

    async def test_of_a_callback_are_raised_without_a_group(self, out: Path) -> None:
        failure = GPROChatError()

        def fail(*_: object) -> None:
            raise failure

        async with batch_site() as site:
            with pytest.raises(GPROChatError) as caught:
                await run(site, io.BytesIO(b"\xff\n"), out, on_bad_line=fail)
            assert caught.value is failure
            with pytest.raises(GPROChatError) as caught:
                await run(site, ["one"], out, on_progress=fail)
            assert caught.value is failure

    async def test_base_exceptions_are_raised_without_a_group(self, out: Path) -> None:
        class Ended(BaseException):
            pass

        def end(summary: BatchSummary) -> None:
            if summary.in_flight:
                raise Ended

        held = Held("one")
        async with batch_site(held) as site:
            with pytest.raises(Ended):
                await run(site, ["one"], out, on_progress=end)
            held.go_on.set()
            await run(site, ["one"], out)
        assert texts(out) == ["re: one"]

    async def test_of_the_disk_are_raised_without_a_group(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "disk full")

        held = Held("two")
        async with batch_site(held) as site:
            with monkeypatch.context() as patch:
                patch.setattr(Journal, "_take", full)
                with pytest.raises(OSError, match="disk full"):
                    await run(site, ["one", "two"], out)
            held.go_on.set()
            await run(site, ["one", "two"], out)
        assert texts(out) == ["re: one", "re: two"]

    async def test_of_counting_do_not_end_the_batch(
        self, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried = anyio.Event()

        async def fail(_: object) -> int:
            tried.set()
            raise OSError(5, "no")

        def respond(request: Request) -> Script:
            return tried.wait, Say(request.prompt)

        monkeypatch.setattr("gprochat_anyio.batch._lines.LineReader.count", fail)
        async with batch_site(respond) as site:
            source = jsonl(tmp_path / "in.jsonl", {"prompt": "one"})
            assert (await run(site, source, out, on_progress=lambda _: None)).total == 1


class TestProgress:
    async def test_is_reported_during_the_run_and_at_its_end(
        self, tmp_path: Path, out: Path
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", {"prompt": "one"}, {"prompt": "two"}, {})
        held = Held("two")
        seen: list[BatchSummary] = []

        def watch(summary: BatchSummary) -> None:
            seen.append(summary)
            if summary.answered and summary.total is not None:
                held.go_on.set()

        async with batch_site(held) as site:
            summary = await run(site, source, out, on_progress=watch, max_at_once=1)
        middle = next(s for s in seen if s.answered)
        assert (middle.total, middle.answered, middle.in_flight) == (3, 1, 1)
        assert not middle.complete
        assert seen[-1].done == summary.done == 3
        assert seen[-1].in_flight == 0
        assert summary.complete
        assert summary.latency is not None
        assert summary.first_chunk is not None
        assert summary.first_chunk.p50 <= summary.latency.most <= summary.elapsed

    async def test_never_shows_a_prompt(self, out: Path) -> None:
        async with batch_site(some_fail) as site:
            summary = await run(site, ["secret fail", "secret"], out)
        assert "secret" not in repr(summary)
