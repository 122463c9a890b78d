"""Later runs of `run_batch` with the same output, and runs that it refuses."""

from __future__ import annotations

import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.batch_runs import Held, jsonl, names, run, some_fail, tear, texts, written
from support.batch_site import batch_site, echo

from gprochat_anyio import Client
from gprochat_anyio.batch import OutputBusyError, OutputError, run_batch

pytestmark = pytest.mark.usefixtures("quick_ticks")


class TestRefuses:
    @pytest.mark.parametrize(
        "options",
        [
            {"sync_every": -1},
            {"sync_every": math.nan},
            {"grace": -1},
            {"format": "csv"},
            {"source": 5},
            {"source": io.StringIO("Hi")},
            {"source": {"prompt": "Hi"}},
            {"max_at_once": 0},
            {"max_per_second": 0},
            {"limiter": 5},
        ],
    )
    async def test_invalid_arguments(self, out: Path, options: dict[str, Any]) -> None:
        options = {"source": [], **options}
        async with Client("http://site.test") as client:
            with pytest.raises(ValueError):
                await run_batch(client, sink=out, **options)
        assert names(out.parent) == []

    async def test_a_missing_source(self, tmp_path: Path, out: Path) -> None:
        async with Client("http://site.test") as client:
            with pytest.raises(FileNotFoundError):
                await run_batch(client, tmp_path / "none", out)
        assert names(tmp_path) == []

    async def test_its_own_input_as_output(self, tmp_path: Path) -> None:
        source = jsonl(tmp_path / "in.jsonl")
        (tmp_path / "link").symlink_to(source)
        async with Client("http://site.test") as client:
            with pytest.raises(OutputError, match="the input itself"):
                await run_batch(client, source, tmp_path / "link")

    async def test_an_output_of_another_program(self, tmp_path: Path) -> None:
        source = jsonl(tmp_path / "in.jsonl", {"prompt": "Hi"})
        other = jsonl(tmp_path / "other.jsonl", {"id": 1, "prompt": "Hi"})
        before = written(other)
        async with Client("http://site.test") as client:
            with pytest.raises(OutputError, match="line 1 is not a batch's"):
                await run_batch(client, source, other)
        assert written(other) == before

    async def test_a_second_run(self, tmp_path: Path, out: Path) -> None:
        held = Held("one")
        async with batch_site(held) as site, anyio.create_task_group() as tg:
            tg.start_soon(run, site, ["one"], out)
            await held.holding.wait()
            with pytest.raises(OutputBusyError, match="another run is writing"):
                await run(site, ["one"], out)
            held.go_on.set()
        assert texts(out) == ["re: one"]
        assert names(tmp_path) == [out.name]


class TestResume:
    async def test_asks_prompts_without_a_line(self, out: Path) -> None:
        async with batch_site() as site:
            await run(site, ["one", "two"], out)
            summary = await run(site, ["one", "two", "three"], out)
            assert site.counts == {"one": 1, "two": 1, "three": 1}
        assert texts(out) == ["re: one", "re: two", "re: three"]
        assert (summary.answered, summary.answered_before, summary.done) == (1, 2, 3)
        assert summary.all_answered

    async def test_matches_prompts_by_key_not_position(self, out: Path) -> None:
        async with batch_site() as site:
            await run(site, ["a", "b", "c", "b"], out)
            summary = await run(site, ["new", "b", "b", "b", "a"], out)
            assert site.counts == {"a": 1, "b": 3, "c": 1, "new": 1}
        assert summary.answered_before == 3
        assert Counter(texts(out)) == {"re: a": 1, "re: b": 3, "re: c": 1, "re: new": 1}

    async def test_duplicates_get_a_line_each(self, out: Path) -> None:
        async with batch_site() as site:
            for done in (2, 5, 5):
                await run(site, ["same"] * done, out)
                assert len(written(out)) == done
        assert len({line["key"] for line in written(out)}) == 1

    async def test_another_site_is_asked_again_unless_it_has_the_same_name(self, out: Path) -> None:
        async with batch_site() as site:
            await run(site, ["one"], out)
            await run(site, ["one"], out, prefix="/other")
            await run(site, ["two"], out, site="s")
            await run(site, ["two"], out, site="s", prefix="/other")
        assert texts(out).count("re: one") == 2
        assert texts(out).count("re: two") == 1

    async def test_failures_are_asked_again_only_with_retry_failed(self, out: Path) -> None:
        items = ["one", "fail two", "", "fail three"]
        async with batch_site(some_fail) as site:
            assert (await run(site, items, out)).failed == 3
            summary = await run(site, items, out)
            assert (summary.failed, summary.failed_before) == (0, 3)
            assert not summary.all_answered
            site.answer = echo
            summary = await run(site, items, out, retry_failed=True)
            assert site.counts == {"one": 1, "fail two": 2, "fail three": 2}
        assert texts(out) == ["re: one", "re: fail two", None, "re: fail three"]
        assert (summary.answered, summary.failed, summary.answered_before) == (2, 1, 1)

    async def test_a_lock_file_that_was_left_does_not_matter(
        self, tmp_path: Path, out: Path
    ) -> None:
        (tmp_path / f".{out.name}.gprochat-lock").touch()
        (tmp_path / f".{out.name}.gprochat-new").write_text("half")
        async with batch_site() as site:
            await run(site, ["one"], out)
        assert names(tmp_path) == [out.name]

    async def test_the_prompt_of_an_incomplete_line_is_asked_again(self, out: Path) -> None:
        items = [f"{n}" for n in range(9)]
        async with batch_site() as site:
            await run(site, items, out)
            left = tear(out)
            summary = await run(site, items, out)
        assert texts(out) == [f"re: {n}" for n in items]
        assert summary.answered_before == left
