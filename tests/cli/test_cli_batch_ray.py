"""`gprochat batch --ray`, with a fake cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.raw_site import environment

import gprochat_anyio.batch
from gprochat_anyio.batch import BatchSummary, ShardLostError
from gprochat_anyio.cli._main import gprochat

URL = "http://site.test"


class FakeCluster(ModuleType):
    """Replacement of `gprochat_anyio.batch.on_ray` and of Ray."""

    def __init__(self) -> None:
        super().__init__("gprochat_anyio.batch.on_ray")
        self.ray = self
        self.events: list[str] = []
        self.given: dict[str, Any] = {}
        self.clients: list[str] = []
        self.failure: Exception | None = None

    def init(self, *, address: str | None, **_: Any) -> None:
        self.events.append(f"connected to {address}")

    def shutdown(self) -> None:
        self.events.append("disconnected")

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0}

    def run_on_ray(self, make_client: Any, source: Any, folder: str, **given: Any) -> BatchSummary:
        self.clients.append(str(make_client().url))
        self.given = {**given, "source": source, "folder": folder}
        summary = BatchSummary(
            answered=5,
            failed=0,
            answered_before=0,
            failed_before=0,
            in_flight=0,
            total=5,
            complete=True,
            elapsed=1.0,
            characters=10,
            failures={},
            latency=None,
            first_chunk=None,
        )
        given["on_progress"](summary)
        if self.failure is not None:
            raise self.failure
        return summary


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setitem(sys.modules, "gprochat_anyio.batch.on_ray", fake)
    monkeypatch.setattr(gprochat_anyio.batch, "on_ray", fake, raising=False)
    return fake


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "hi"}\n')
    return path


def run(*arguments: Any) -> Result:
    command = ["batch", *map(str, arguments), "--url", URL]
    return CliRunner(env=environment()).invoke(gprochat, command)


def test_a_batch_on_the_cluster(cluster: FakeCluster, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(source, "--out", out, "--ray", "ray://head:10001", "--max-per-second", 50)
    assert result.exit_code == 0, result.output
    assert "answered" in result.output
    assert cluster.events == ["connected to ray://head:10001", "disconnected"]
    assert cluster.clients == [URL]
    given = cluster.given
    assert given["source"] == [source]
    assert (given["folder"], given["shards"]) == (str(out), 32)
    assert (given["max_at_once"], given["max_at_once_per_shard"]) == (None, 16)
    assert (given["max_per_second"], given["grace"], given["backend"]) == (50.0, 10.0, "trio")
    assert not given["stop"]()
    assert "limit" not in given


def test_the_limit_is_that_of_all_shards(
    cluster: FakeCluster, source: Path, tmp_path: Path
) -> None:
    arguments = ("--out", tmp_path / "out", "--ray", "--shards", 3, "--max-at-once", 100, "--quiet")
    result = run(source, source, *arguments)
    assert (result.exit_code, result.output) == (0, "")
    assert cluster.events[0] == "connected to None"
    assert cluster.given["source"] == [source, source]
    assert cluster.given["shards"] == 3
    assert (cluster.given["max_at_once"], cluster.given["max_at_once_per_shard"]) == (100, 100)


def test_a_batch_keeps_its_number_of_shards(
    cluster: FakeCluster, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json").write_text('{"of": 7, "files": []}')
    assert run(source, "--out", out, "--ray", "--quiet").exit_code == 0
    assert cluster.given["shards"] == 7


def test_a_shard_that_is_lost(cluster: FakeCluster, source: Path, tmp_path: Path) -> None:
    cluster.failure = ShardLostError("shard 3 was lost; run the batch again")
    result = run(source, "--out", tmp_path / "out", "--ray", "--quiet")
    assert (result.exit_code, result.output) == (
        1,
        "gprochat: shard 3 was lost; run the batch again\n",
    )
    assert cluster.events[-1] == "disconnected"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ray", "--shard", "0/2"), "--ray and --shard exclude each other"),
        (("--ray", "--limit", "5"), "--ray and --limit exclude each other"),
        (("--shards", "5"), "--shards needs --ray"),
    ],
)
def test_arguments_that_contradict_each_other(
    cluster: FakeCluster, source: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = run(source, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert not cluster.events


def test_stdin_reaches_no_worker(cluster: FakeCluster, tmp_path: Path) -> None:
    result = run("-", "--out", tmp_path / "out", "--ray")
    assert result.exit_code == 2
    assert "not stdin" in result.output
    assert not cluster.events


def test_without_ray_it_says_what_to_install(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(gprochat_anyio.batch, "on_ray", raising=False)
    for name in [*sys.modules]:
        if name.partition(".")[0] == "ray" or name == "gprochat_anyio.batch.on_ray":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run(source, "--out", tmp_path / "out", "--ray")
    assert result.exit_code == 1
    assert "gprochat-anyio[ray]" in result.output
