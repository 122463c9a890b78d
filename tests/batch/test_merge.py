"""`merge_shards`: merged lines, their order, and the summary."""

from __future__ import annotations

import json
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.batch_site import batch_site_in_thread, echo

from gprochat_anyio import Client, Retry
from gprochat_anyio.batch import MergeSummary, OutputBusyError, OutputError, merge_shards, run_shard
from gprochat_anyio.batch import _merge as merge_module
from gprochat_anyio.batch import _part_lines as part_lines_module
from gprochat_anyio.batch._line_order import LineOrder, LinePlace
from gprochat_anyio.batch._lock import FileLock
from gprochat_anyio.batch._part_lines import PartReader
from gprochat_anyio.batch._recovery import examine
from gprochat_anyio.testing import Refuse, Request, Script

PART = "part-{:05}-of-{:05}.jsonl"
BOTH = pytest.mark.parametrize("ordered", [False, True])


def reply(index: int, **more: Any) -> str:
    return json.dumps({"id": None, "index": index, **more, "text": "x", "key": f"{index:064x}"})


def failure(index: int) -> str:
    return json.dumps({"id": None, "index": index, "error": {}, "key": f"{index:064x}"})


def shards(folder: Path, *parts: list[str] | None, files: tuple[str, ...] = ()) -> Path:
    """Create a folder as killed shards leave it. `None` is a shard that has not begun."""
    folder.mkdir()
    plan = {"of": len(parts), "files": files}
    (folder / "plan.json").write_text(json.dumps(plan))
    for number, part in enumerate(parts):
        if part is not None:
            text = "".join(f"{line}\n" for line in part)
            (folder / PART.format(number, len(parts))).write_text(text)
    return folder


def complete(folder: Path, shard: int, of: int, **marker: int) -> None:
    part = folder / PART.format(shard, of)
    marked = {"size": part.stat().st_size, "failed": 0, "source": None, **marker}
    part.with_suffix(".done.json").write_text(json.dumps(marked))


def written(out: Path) -> list[dict[str, Any]]:
    assert out.read_bytes().endswith(b"\n")
    return [json.loads(line) for line in out.read_bytes().splitlines()]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "replies.jsonl"


class TestLines:
    def test_of_completed_shards(self, tmp_path: Path, out: Path) -> None:
        def some_fail(request: Request) -> Script:
            return Refuse(400, "no") if request.prompt == "p 3" else echo(request)

        files = [tmp_path / name for name in ("b.txt", "a.txt", "c.txt")]
        for file in files:
            file.write_text("".join(f"{file.name} {number % 3}\n" for number in range(9)))
        files[2].write_text("p 3\n")
        with batch_site_in_thread(some_fail) as site:
            client = partial(Client, site.url, trust_env=False, retry=Retry(attempts=1))
            for shard in range(5):
                run_shard(client, files, tmp_path / "out", shard=shard, of=5)
        summary = merge_shards(tmp_path / "out", out, ordered=True)
        places = [(line["file"], line["index"]) for line in written(out)]
        assert places == [(f, n) for f in ("b.txt", "a.txt") for n in range(9)] + [("c.txt", 0)]
        assert summary == MergeSummary(5, 18, 1, missing={}, surplus=0)
        assert summary.complete
        assert not summary.all_answered

    @BOTH
    def test_incomplete_lines_are_skipped(self, tmp_path: Path, out: Path, ordered: bool) -> None:
        folder = shards(tmp_path / "out", [reply(2), "\0" * 9, "", failure(0)], [reply(1), ""])
        for number, end in enumerate((reply(3)[:-5], reply(4))):
            with (folder / PART.format(number, 2)).open("a") as file:
                file.write(end)  # one is incomplete, the other lacks only its newline
        summary = merge_shards(folder, out, ordered=ordered)
        found = [line["index"] for line in written(out)]
        assert found == ([0, 1, 2, 4] if ordered else [2, 0, 1, 4])
        assert summary == MergeSummary(2, 3, 1, missing={0: 2, 1: 2}, surplus=0)

    @BOTH
    def test_lone_surrogates_are_merged(self, tmp_path: Path, out: Path, ordered: bool) -> None:
        lone = [reply(0, x="\ud800"), failure(1)[:-1] + ', "x": "\\udfff"}']  # not valid Unicode
        folder = shards(tmp_path / "out", [*lone, reply(2, file=["a"], error=None)])
        merge_shards(folder, out, ordered=ordered)
        assert [line["index"] for line in written(out)] == [0, 1, 2]

    @BOTH
    def test_a_replaced_failure_is_skipped(self, tmp_path: Path, out: Path, ordered: bool) -> None:
        again = f'{reply(0)[:-1]},"retried":"{0:064x}"}}'
        folder = shards(tmp_path / "out", [failure(0), failure(1), again])
        assert merge_shards(folder, out, ordered=ordered).failed == 1
        found = written(out)
        assert sorted(line["index"] for line in found) == [0, 1]
        assert not any("retried" in line for line in found)

    def test_lines_that_a_shard_adds_meanwhile_are_not_merged(
        self, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = shards(tmp_path / "out", [reply(0)])

        def examine_and_go_on(*arguments: Any) -> Any:
            found = examine(*arguments)
            with (folder / PART.format(0, 1)).open("a") as file:
                file.write(f"{reply(1)}\n")
            return found

        monkeypatch.setattr(part_lines_module, "examine", examine_and_go_on)
        merge_shards(folder, out)
        assert len(written(out)) == 1

    def test_of_openais_batch_files(self, tmp_path: Path, out: Path) -> None:
        def refuse_two(request: Request) -> Script:
            return Refuse(400, "no") if request.prompt == "2" else echo(request)

        files = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
        for file in files:
            requests = (
                {
                    "custom_id": f"{file.name} {number}",
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {"messages": [{"role": "user", "content": f"{number}"}]},
                }
                for number in range(4)
            )
            file.write_text("".join(f"{json.dumps(request)}\n" for request in requests))
        with batch_site_in_thread(refuse_two) as site:
            client = partial(Client, site.url, trust_env=False, retry=Retry(attempts=1))
            for shard in range(3):
                run_shard(client, files, tmp_path / "out", shard=shard, of=3, format="openai")
        summary = merge_shards(tmp_path / "out", out, ordered=True)
        ids = [line["custom_id"] for line in written(out)]
        assert ids == [f"{file.name} {number}" for file in files for number in range(4)]
        assert summary == MergeSummary(3, 6, 2, missing={}, surplus=0)

    @pytest.mark.parametrize(("ordered", "completed"), [(False, True), (True, True), (True, False)])
    def test_lines_that_no_batch_wrote_are_refused(
        self, tmp_path: Path, out: Path, ordered: bool, completed: bool
    ) -> None:
        folder = shards(tmp_path / "out", [reply(0), '{"a": 1}'])
        if completed:
            complete(folder, 0, 1, answered=2)
        out.write_text(reply(9))
        with pytest.raises(OutputError, match=r"00001.jsonl.* line 2 is not a batch's"):
            merge_shards(folder, out, ordered=ordered)
        assert out.read_text() == reply(9)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "replies.jsonl"]

    def test_a_part_that_is_replaced_meanwhile_is_refused(
        self, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = shards(tmp_path / "out", [reply(0), reply(1)])

        class Rewritten(PartReader):
            def read(self, part: int, offset: int, length: int) -> bytes:
                new = folder / "new"
                new.write_text(reply(1))
                new.replace(folder / PART.format(part, 1))
                return super().read(part, offset, length)

        monkeypatch.setattr(merge_module, "PartReader", Rewritten)
        with pytest.raises(OutputError, match="was rewritten meanwhile; merge again"):
            merge_shards(folder, out, ordered=True)
        assert not out.exists()

    def test_more_parts_than_open_files(
        self, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(part_lines_module, "_MOST_OPEN", 2)
        folder = shards(tmp_path / "out", *([reply(n + 4), reply(n)] for n in range(4)))
        merge_shards(folder, out, ordered=True)
        assert [line["index"] for line in written(out)] == list(range(8))


class TestSummary:
    def test_missing_shards(self, tmp_path: Path, out: Path) -> None:
        folder = shards(tmp_path / "out", [reply(0)], [reply(1)], None, [reply(3)], [])
        complete(folder, 0, 5, answered=1)
        complete(folder, 1, 5, answered=2)  # the disk has lost a line
        complete(folder, 3, 5, answered=1, size=7)  # the part was replaced
        complete(folder, 4, 5, answered=0)
        summary = merge_shards(folder, out)
        assert summary == MergeSummary(5, 3, 0, missing={1: 1, 2: 0, 3: 1}, surplus=0)
        assert not summary.complete
        assert not summary.all_answered

    def test_surplus_lines_of_removed_prompts(self, tmp_path: Path, out: Path) -> None:
        folder = shards(tmp_path / "out", [reply(0), reply(1), failure(2)])
        complete(folder, 0, 1, answered=1, failed=1)
        assert merge_shards(folder, out) == MergeSummary(1, 2, 1, missing={}, surplus=1)


class TestSink:
    def test_merging_again_replaces_it(self, tmp_path: Path, out: Path) -> None:
        folder = shards(tmp_path / "out", [reply(0)])
        for more in ("", f"{reply(1)}\n"):
            with (folder / PART.format(0, 1)).open("a") as file:
                file.write(more)
            merge_shards(folder, out)
        assert len(written(out)) == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "replies.jsonl"]

    def test_through_a_link(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "link").symlink_to(out)
        merge_shards(shards(tmp_path / "out", [reply(0)]), tmp_path / "link")
        assert len(written(out)) == 1
        assert (tmp_path / "link").is_symlink()

    def test_another_file_is_left_unchanged(self, tmp_path: Path, out: Path) -> None:
        folder = shards(tmp_path / "out", [reply(0)])
        out.write_text("mine\n")
        with pytest.raises(OutputError, match="is left unchanged"):
            merge_shards(folder, out)
        assert out.read_text() == "mine\n"
        with pytest.raises(OutputError, match="is not a regular file"):
            merge_shards(folder, tmp_path)
        with pytest.raises(OutputError, match="is one of the parts"):
            merge_shards(folder, folder / PART.format(0, 1))

    def test_an_empty_file_is_replaced(self, tmp_path: Path, out: Path) -> None:
        out.touch()
        merge_shards(shards(tmp_path / "out", [reply(0)]), out)
        assert len(written(out)) == 1

    def test_one_run_at_a_time(self, tmp_path: Path, out: Path) -> None:
        lock = FileLock(str(tmp_path / ".replies.jsonl.gprochat-lock"))
        assert lock.acquire()
        try:
            with pytest.raises(OutputBusyError, match="another run is writing"):
                merge_shards(shards(tmp_path / "out", [reply(0)]), out)
        finally:
            lock.release()

    def test_without_shards(self, tmp_path: Path, out: Path) -> None:
        with pytest.raises(OutputError, match="does not hold a batch in shards"):
            merge_shards(tmp_path, out)


def test_order_beyond_memory(tmp_path: Path) -> None:
    chance = random.Random(1)
    places = [LinePlace(n % 3, n * 2**33, n, n * 2**40, 2**31) for n in range(100)]
    given = chance.sample(places, len(places))
    order = LineOrder(tmp_path, run=7, block=3)
    for place in given:
        order.add(place)
    assert list(order.sorted()) == sorted(places)
    assert not os.listdir(tmp_path), "the temporary file has a name"  # noqa: PTH208
    order.close()
