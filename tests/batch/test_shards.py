"""`run_shard`: division of prompts, completed shards, and refused arguments."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from support.batch_site import BatchSite, batch_site_in_thread, echo
from support.raw_site import BOUND

from gprochat_anyio import Client, Fleet, Message, Retry
from gprochat_anyio.batch import BatchSummary, OutputBusyError, OutputError, run_shard
from gprochat_anyio.batch import _journal as journal_module
from gprochat_anyio.batch import _shards as shards_module
from gprochat_anyio.batch._input import records_of
from gprochat_anyio.batch._keys import key_of_messages
from gprochat_anyio.batch._share import share_of
from gprochat_anyio.batch._source_files import names_of
from gprochat_anyio.testing import Hang, Refuse, Request, Script

MakeClient = Callable[[], Client | Fleet]


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "TICK", 0.001)


@pytest.fixture
def site() -> Iterator[BatchSite]:
    with batch_site_in_thread() as site:
        yield site


@pytest.fixture
def make_client(site: BatchSite) -> MakeClient:
    return partial(Client, site.url, trust_env=False, retry=Retry(attempts=1))


def no_client() -> Client:
    raise AssertionError("a completed shard needs no client")


def fail(request: Request) -> Script:
    return Refuse(500, "no")


def jsonl(path: Path, *prompts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def fifo_of(data: bytes) -> str:
    """Return the path of a pipe that holds the data."""
    receive, send = os.pipe()
    os.write(send, data)
    os.close(send)
    return f"/dev/fd/{receive}"


def touch(path: Path, seconds: int) -> None:
    """Change only the time of a file."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + seconds * 10**9))


def lines(folder: Path, shard: int, of: int) -> list[dict[str, Any]]:
    part = folder / f"part-{shard:05}-of-{of:05}.jsonl"
    return [json.loads(line) for line in part.read_bytes().splitlines()]


def asked_by(site: BatchSite, run: Callable[[], object]) -> list[str]:
    """Return the prompts that the call asks, sorted."""
    before = len(site.asked)
    run()
    return sorted(site.asked[before:])


def key_of(site: BatchSite, prompt: str) -> int:
    """Return the key of a prompt. It depends on the site's port, so it differs between runs."""
    return int(key_of_messages(site.url, [Message("user", prompt)]), 16)


class TestDivision:
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_prompts_are_divided_by_key(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient, backend: Any
    ) -> None:
        prompts = [f"p {number % 15}" for number in range(20)]  # some of them are duplicates
        source = jsonl(tmp_path / "in.jsonl", *prompts)
        for shard in (2, 0, 1):
            run = partial(run_shard, make_client, source, tmp_path / "out", backend=backend)
            mine = sorted(prompt for prompt in prompts if key_of(site, prompt) % 3 == shard)
            assert asked_by(site, partial(run, shard=shard, of=3)) == mine
            found = lines(tmp_path / "out", shard, 3)
            assert sorted(prompts[line["index"]] for line in found) == mine
            assert not any("file" in line for line in found)

    def test_a_call_can_be_pickled(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", "a", "b")
        run = partial(run_shard, make_client, source, tmp_path / "out", shard=0, of=1)
        summary = pickle.loads(pickle.dumps(run))()  # noqa: S301 - its own
        assert (summary.answered, summary.total, summary.all_answered) == (2, 2, True)

    def test_as_many_files_as_shards_are_whole(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        names = ("a/1.jsonl", "a/2.jsonl", "b/1.jsonl")
        for name in names:
            jsonl(tmp_path / "in" / name, name, "twice")
        files = [tmp_path / "in" / name for name in names]
        run = partial(run_shard, make_client, files, tmp_path / "out", of=2)
        assert asked_by(site, partial(run, shard=0)) == ["a/1.jsonl", "b/1.jsonl", "twice", "twice"]
        assert asked_by(site, partial(run, shard=1)) == ["a/2.jsonl", "twice"]
        places = {(line["file"], line["index"]) for line in lines(tmp_path / "out", 0, 2)}
        assert places == {(name, index) for name in names[::2] for index in range(2)}

    def test_fewer_files_than_shards_are_divided_by_key(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        files = {name: [f"{name} {number}" for number in range(12)] for name in ("a", "b")}
        for name, prompts in files.items():
            jsonl(tmp_path / f"{name}.jsonl", *prompts)
        run = partial(run_shard, make_client, str(tmp_path / "*.jsonl"), tmp_path / "out", of=5)
        for shard, (name, rank, sharers) in enumerate(
            [("a", 0, 3), ("b", 0, 2), ("a", 1, 3), ("b", 1, 2), ("a", 2, 3)]
        ):
            mine = sorted(p for p in files[name] if key_of(site, p) % sharers == rank)
            assert asked_by(site, partial(run, shard=shard)) == mine
        assert len(site.asked) == len(set(site.asked)) == 24

    @pytest.mark.skipif(os.name == "nt", reason="FIFO")
    async def test_totals_are_known_for_whole_files(self, tmp_path: Path) -> None:
        files = [str(jsonl(tmp_path / f"{n}.jsonl", "x", f"{n}")) for n in range(4)]
        names = names_of(files)
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        for share, total in (
            (share_of(files, files, names, shard=1, of=2), 4),
            (share_of(files, files, names, shard=1, of=5), 2),
            (share_of(files, files, names, shard=0, of=5), None),
            (share_of(fifo, [str(fifo)], [], shard=0, of=1), None),
        ):
            assert await records_of(share, None, "site").count() == total


class TestCompletion:
    def test_a_completed_shard_returns_without_a_client(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", "a", "b", "fail")
        site.answer = lambda request: fail(request) if "fail" in request.prompt else echo(request)
        first = run_shard(make_client, source, tmp_path / "out", shard=0, of=1)
        again = run_shard(no_client, source, tmp_path / "out", shard=0, of=1)
        assert (first.answered, first.failed, first.total) == (2, 1, 3)
        assert (again.answered_before, again.failed_before, again.total) == (2, 1, 3)
        assert (again.answered, again.failed, again.in_flight) == (0, 0, 0)
        assert again.complete
        assert not again.all_answered

    def test_failures_are_asked_again_with_retry_failed(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", "a")
        run = partial(run_shard, source=source, folder=tmp_path / "out", shard=0, of=1)
        site.answer = fail
        run(make_client)
        site.answer = echo
        assert run(make_client, retry_failed=True).all_answered
        assert run(no_client, retry_failed=True).all_answered

    def test_a_changed_input_file_reopens_the_shard(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", "a")
        run = partial(run_shard, make_client, source, tmp_path / "out", shard=0, of=1)
        run()
        jsonl(source, "a", "b")
        assert asked_by(site, run) == ["b"]
        touch(source, 1)
        assert asked_by(site, run) == [], "it was read again"
        touch(source, 2)
        with pytest.raises(AssertionError, match="needs no client"):
            run_shard(no_client, source, tmp_path / "out", shard=0, of=1)

    def test_a_changed_part_file_reopens_the_shard(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", "a", "b")
        run = partial(run_shard, make_client, source, tmp_path / "out", shard=0, of=1)
        run()
        part = tmp_path / "out" / "part-00000-of-00001.jsonl"
        part.write_bytes(part.read_bytes().splitlines(keepends=True)[0])
        assert len(asked_by(site, run)) == 1
        part.unlink()
        assert asked_by(site, run) == ["a", "b"]

    @pytest.mark.parametrize("prompts", [["a", "b"], ("a", "b")])
    def test_changed_items_of_a_list_reopen_the_shard(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient, prompts: Any
    ) -> None:
        run = partial(run_shard, folder=tmp_path / "out", shard=0, of=1)
        run(make_client, prompts)
        assert run(no_client, prompts).all_answered
        assert asked_by(site, lambda: run(make_client, [*prompts, "c"])) == ["c"]

    @pytest.mark.parametrize(
        "make_source",
        [
            lambda: iter(["a"]),
            lambda: io.BytesIO(b"a"),
            pytest.param(
                lambda: fifo_of(b"a"), marks=pytest.mark.skipif(os.name == "nt", reason="/dev/fd")
            ),
            lambda: [MappingProxyType({"prompt": "a"})],  # not supported by pickle
        ],
    )
    def test_sources_without_a_fingerprint_are_read_again(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient, make_source: Any
    ) -> None:
        for answered in (1, 0):
            summary = run_shard(make_client, make_source(), tmp_path / "out", shard=0, of=1)
            assert (summary.answered, summary.complete) == (answered, True)

    def test_a_stopped_shard_is_not_completed(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", "a", "b")
        run = partial(run_shard, make_client, source, tmp_path / "out", shard=0, of=1)
        site.answer = lambda request: Hang()
        assert not run(stop=lambda: True, grace=0).complete
        site.answer = echo
        assert run(stop=lambda: False).complete

    def test_a_run_first_removes_the_marker(
        self, tmp_path: Path, site: BatchSite, make_client: MakeClient
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", "a")
        run = partial(run_shard, source=source, folder=tmp_path / "out", shard=0, of=1)
        site.answer = fail
        run(make_client)
        with pytest.raises(AssertionError):
            run(no_client, retry_failed=True)  # it may have removed failures before it failed
        site.answer = echo
        assert run(make_client, retry_failed=True).answered == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("shard", "of", "words"),
        [
            (2, 2, "the last is 1"),
            (-1, 2, "count from 0"),
            ("0", 2, "count from 0"),
            (0, 0, "at least 1"),
            (0, "2", "at least 1"),
        ],
    )
    def test_invalid_shard_numbers(self, tmp_path: Path, shard: Any, of: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            run_shard(no_client, ["a"], tmp_path / "out", shard=shard, of=of)
        assert not (tmp_path / "out").exists()

    def test_another_number_of_shards(self, tmp_path: Path, make_client: MakeClient) -> None:
        run = partial(run_shard, make_client, ["a"], tmp_path, shard=0)
        run(of=2)
        with pytest.raises(OutputError, match="begun with 2 shards, not 3; continue with 2"):
            run(of=3)

    @pytest.mark.parametrize(
        ("names", "words"),
        [("abc", "c is new"), ("a", "a is missing"), ("ba", "another order"), ("ad", "d is new")],
    )
    def test_other_files(
        self, tmp_path: Path, make_client: MakeClient, names: str, words: str
    ) -> None:
        def run(names: str) -> BatchSummary:
            files = [jsonl(tmp_path / name, "x") for name in names]
            return run_shard(make_client, files, tmp_path / "out", shard=0, of=2)

        run("ab")
        with pytest.raises(OutputError, match=words):
            run(names)

    def test_concurrent_plans(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_client: MakeClient
    ) -> None:
        def write(path: Path, value: object) -> None:
            if path.name.startswith(".plan"):  # another process writes its plan first
                (tmp_path / "plan.json").write_text('{"of": 3, "files": []}')
            path.write_text(json.dumps(value))

        monkeypatch.setattr(shards_module, "write_synced", write)
        with pytest.raises(OutputError, match="begun with 3 shards, not 2"):
            run_shard(make_client, ["a"], tmp_path, shard=0, of=2)
        assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
        assert run_shard(make_client, ["a"], tmp_path, shard=0, of=3).complete

    def test_a_running_shard(self, tmp_path: Path, make_client: MakeClient) -> None:
        def make() -> Client | Fleet:
            with pytest.raises(OutputBusyError, match=r"another run is writing .*part-00000"):
                run_shard(no_client, ["a"], tmp_path, shard=0, of=2)
            with ThreadPoolExecutor(1) as pool:  # this thread runs an event loop
                run = partial(run_shard, make_client, ["a"], tmp_path, shard=1, of=2)
                assert pool.submit(run).result(BOUND).complete
            return make_client()

        assert run_shard(make, ["a"], tmp_path, shard=0, of=2).complete

    @pytest.mark.parametrize(
        ("source", "error", "words"),
        [
            ("none.jsonl", FileNotFoundError, "none.jsonl"),
            ("none-*.jsonl", FileNotFoundError, "no file matches"),
            ([Path("in.jsonl"), "a prompt"], ValueError, "not a mixture"),
            ([Path("in.jsonl"), Path("*.jsonl")], ValueError, "in.jsonl is listed twice"),
        ],
    )
    def test_invalid_files(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        source: Any,
        error: type[Exception],
        words: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        jsonl(tmp_path / "in.jsonl", "a")
        with pytest.raises(error, match=words):
            run_shard(no_client, source, "out", shard=0, of=2)
        assert not Path("out").exists()

    def test_an_invalid_line_names_its_file(self, tmp_path: Path, make_client: MakeClient) -> None:
        bad, good = tmp_path / "a.jsonl", jsonl(tmp_path / "b.jsonl", "b")
        bad.write_text('{"prompt": "x", "file": "y"}\n{')
        told: list[tuple[int, str]] = []
        run_shard(
            make_client,
            [bad, good],
            tmp_path / "out",
            shard=0,
            of=1,
            on_bad_line=lambda number, why: told.append((number, why)),
        )
        assert [(number, why[:16]) for number, why in told] == [(2, "a.jsonl, line 2:")]
        found = {(line["file"], line["index"]): line for line in lines(tmp_path / "out", 0, 1)}
        assert found["a.jsonl", 0]["input_file"] == "y"
        assert found["a.jsonl", 1]["error"]["message"].startswith("a.jsonl, line 2: ")
        assert found["b.jsonl", 0]["text"] == "re: b"


def test_the_output_is_no_input(tmp_path: Path, make_client: MakeClient) -> None:
    part = tmp_path / "part-00000-of-00001.jsonl"
    part.write_text("")
    with pytest.raises(OutputError, match="the output is the input itself"):
        run_shard(make_client, part, tmp_path, shard=0, of=1)


def test_patterns_in_a_name_that_exists_are_the_name(
    tmp_path: Path, site: BatchSite, make_client: MakeClient
) -> None:
    source = jsonl(tmp_path / "in[1].jsonl", "a")
    assert run_shard(make_client, source, tmp_path / "out", shard=0, of=1).answered == 1
