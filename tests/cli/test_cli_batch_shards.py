"""`gprochat batch --shard` and `--merge`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.batch_site import BatchSite, batch_site_in_thread, echo
from support.raw_site import BOUND, running

from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.testing import Hang, Refuse, Request, Script


@pytest.fixture
def site() -> Iterator[BatchSite]:
    with batch_site_in_thread() as site:
        yield site


def some_fail(request: Request) -> Script:
    return Refuse(400, "no") if "fail" in request.prompt else echo(request)


def run(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(gprochat, ["batch", *map(str, arguments)], input=stdin)


def prompts(path: Path, *prompts: str) -> Path:
    path.write_text("".join(f"{prompt}\n" for prompt in prompts))
    return path


def texts(out: Path) -> list[str]:
    return [json.loads(line)["text"] for line in out.read_bytes().splitlines()]


def test_shards_and_their_merge(tmp_path: Path, site: BatchSite) -> None:
    source = prompts(tmp_path / "in.txt", *map(str, range(12)))
    folder, out = tmp_path / "shards", tmp_path / "out.jsonl"
    asking = (source, "--out", folder, "--url", site.url)
    assert run(*asking, "--shard=2/3").exit_code == 0
    early = run("--merge", folder, "--out", out)
    assert early.exit_code == 1
    assert "shard 0/3 is not completed: 0 lines so far" in early.stderr
    assert f"run these shards with --out {folder}" in " ".join(early.stderr.split())
    for shard in ("0/3", "1/3"):
        assert run(*asking, "--shard", shard, "--quiet").output == ""
    merged = run("--merge", folder, "--out", out, "--ordered")
    assert (merged.exit_code, merged.stdout) == (0, "")
    assert "12 lines of 3 shards: 12 answered, 0 failed" in merged.stderr
    assert texts(out) == [f"re: {number}" for number in range(12)]
    assert sorted(site.asked, key=int) == [str(number) for number in range(12)]


def test_a_completed_shard(tmp_path: Path, site: BatchSite) -> None:
    site.answer = some_fail
    source, folder = prompts(tmp_path / "in.txt", "a", "fail"), tmp_path / "shards"
    arguments = (source, "--out", folder, "--url", site.url, "--shard=0/1")
    assert run(*arguments).exit_code == 1
    again = run(*arguments)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "shard 0/1 is completed: 1 answered, 1 failed" in again.stderr
    assert run(*arguments, "--quiet").output == ""
    site.answer = echo
    assert run(*arguments, "--retry-failed", "--quiet").exit_code == 0
    assert run(*arguments, "--quiet").exit_code == 0
    prompts(source, "a")
    assert run(*arguments, "--quiet").exit_code == 0
    merged = run("--merge", folder, "--out", tmp_path / "out.jsonl")
    assert merged.exit_code == 0
    assert "1 of them belong to prompts that the input no longer has" in merged.stderr


def test_a_run_with_a_limit_completes_nothing(tmp_path: Path, site: BatchSite) -> None:
    source = prompts(tmp_path / "in.txt", "a", "b")
    arguments = (source, "--out", tmp_path / "shards", "--url", site.url, "--shard=0/1", "--quiet")
    assert run(*arguments, "--limit=1").exit_code == 0
    assert not list((tmp_path / "shards").glob("*.done.json"))
    assert run(*arguments).exit_code == 0
    assert len(site.asked) == 2


def test_many_shards_that_are_missing(tmp_path: Path, site: BatchSite) -> None:
    source, folder = prompts(tmp_path / "in.txt", "a"), tmp_path / "shards"
    run(source, "--out", folder, "--url", site.url, "--shard=0/13")
    merged = run("--merge", folder, "--out", tmp_path / "out.jsonl", "--quiet")
    assert merged.exit_code == 1
    assert merged.stderr.count("is not completed") == 10
    assert "2 more shards are not completed" in merged.stderr


def test_files_and_patterns_and_stdin(tmp_path: Path, site: BatchSite) -> None:
    for name in ("a", "b"):
        prompts(tmp_path / f"{name}.txt", name)
    both = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for folder, inputs in (("one", both), ("two", [tmp_path / "*.txt"])):
        rest = ("--out", tmp_path / folder, "--url", site.url, "--shard=1/2", "--quiet")
        assert run(*inputs, *rest).exit_code == 0
    rest = ("--out", tmp_path / "three", "--url", site.url, "--shard=0/1", "--quiet")
    assert run("-", *rest, stdin="c\n").exit_code == 0
    assert site.asked == ["b", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in.txt", "--shard=8/8"], "shards are 0/8 to 7/8"),
        (["in.txt", "--shard=0/0"], "shards are 0/N to (N - 1)/N"),
        (["in.txt", "--shard=1"], "'1' is not I/N, as in 0/8"),
        (["in.txt", "--shard=-1/8"], "'-1/8' is not I/N, as in 0/8"),
        (["in.txt", "in.txt"], "several files need --shard"),
        (["*.txt"], "several files need --shard"),
        (["in.txt", "-", "--shard=0/1"], "give files, or - for stdin"),
        (["in.txt", "--ordered"], "--ordered needs --merge"),
        (["in.txt", "--merge=."], "--merge takes neither INPUT nor --shard"),
        (["--merge=.", "--shard=0/1"], "--merge takes neither INPUT nor --shard"),
        (["--merge=none"], "does not exist"),
        (["--merge=."], "does not hold a batch in shards"),
        ([], "Missing argument 'INPUT'"),
        (["none*.txt", "--shard=0/1"], "no file matches"),
    ],
)
def test_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts(tmp_path / "in.txt", "a")
    result = run(*arguments, "--out=out")
    assert result.exit_code == (1 if "no file" in words else 2)
    assert words in " ".join(result.stderr.split())
    assert not Path("out").exists()


def test_another_number_of_shards(tmp_path: Path, site: BatchSite) -> None:
    source = prompts(tmp_path / "in.txt", "a")
    rest = ("--out", tmp_path / "shards", "--url", site.url, "--quiet")
    run(source, *rest, "--shard=0/2")
    result = run(source, *rest, "--shard=0/4")
    assert result.exit_code == 2
    assert "was begun with 2 shards, not 4" in " ".join(result.stderr.split())


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGINT")
def test_ctrl_c_leaves_it_to_be_resumed(tmp_path: Path, site: BatchSite) -> None:
    source = prompts(tmp_path / "in.txt", "a", "b")
    arguments = (str(source), "--out", str(tmp_path / "shards"), "--url", site.url, "--shard=0/1")
    site.answer = lambda request: Hang()
    with running("batch", *arguments, "--grace=0", "--quiet") as process:
        site.wait_for(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND) == 130
    site.answer = echo
    assert run(*arguments, "--quiet").exit_code == 0
