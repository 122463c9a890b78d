"""Batches on a cluster of two workers: common limits, and killed processes."""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.batch_site import BatchSite, batch_site_in_thread
from support.ray_clients import ClientOf

pytest.importorskip("ray", reason="Ray is not installed: nox -s on_ray")

from gprochat_anyio.batch import BatchSummary, OutputError, ShardLostError
from gprochat_anyio.batch.on_ray import run_on_ray
from gprochat_anyio.testing import Pause, Refuse, Request, Say, Script

PROMPTS = 5000
BOUND = 120.0
MOST_AGAIN = PROMPTS // 10
"""Maximum number of prompts that are sent twice: those in flight, or not yet written, at a kill.

It is generous, because a busy machine has more of them.
"""


def answer(request: Request) -> Script:
    return Pause(0.02), Say(f"re: {request.prompt}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"p{n}"}) for n in range(PROMPTS)))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


def lines(folder: Path) -> Counter[str]:
    """Return how often each prompt has a complete line."""
    found: Counter[str] = Counter()
    for part in folder.glob("part-*.jsonl"):
        for line in part.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                record = json.loads(line)
                found[record["text"].removeprefix("re: ")] += 1
    return found


def check(site: BatchSite, folder: Path, kept: Counter[str]) -> None:
    """Assert that each prompt has one line, and that no prompt in `kept` was sent twice."""
    found = lines(folder)
    assert len(found) == PROMPTS
    assert set(found.values()) == {1}
    assert kept
    assert {site.counts[prompt] for prompt in kept} == {1}
    assert max(site.counts.values()) <= 2, "there was one kill"
    again = sum(site.counts.values()) - PROMPTS
    assert again <= MOST_AGAIN


@pytest.mark.usefixtures("cluster")
def test_a_worker_is_killed(source: Path, folder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "workers"
    notes.mkdir()
    kept: Counter[str] = Counter()
    seen: list[BatchSummary] = []
    with batch_site_in_thread(answer) as site:

        def kill_one() -> None:
            site.wait_for(1)
            while len(site.asked) < PROMPTS // 20:  # long before its shard ends
                site.wait_for(len(site.asked) + 1)
            first = min(notes.iterdir(), key=lambda note: note.stat().st_mtime_ns)
            os.kill(int(first.name), signal.SIGKILL)
            kept.update(lines(folder))

        killer = threading.Thread(target=kill_one)
        killer.start()
        summary = run_on_ray(
            ClientOf(site.url, notes),
            source,
            folder,
            shards=4,
            max_at_once=24,
            sync_every=0.02,
            on_progress=seen.append,
        )
        killer.join()
        check(site, folder, kept)
    assert summary.all_answered
    assert summary.total == PROMPTS
    assert 0 < summary.answered_before < PROMPTS, "the killed one's own"
    assert summary.latency is not None
    assert seen[-1].done == PROMPTS
    assert any(0 < one.done < PROMPTS and one.total == PROMPTS for one in seen)


def test_the_driver_is_killed_and_run_again(cluster: str, source: Path, folder: Path) -> None:
    script = Path(__file__).with_name("ray_batch.py")
    with batch_site_in_thread(answer) as site:
        arguments = (cluster, site.url, source, folder)
        with subprocess.Popen([sys.executable, script, *arguments]) as driver:  # noqa: S603 - our own code
            guard = threading.Timer(BOUND, driver.kill)
            guard.start()
            while len(site.asked) < PROMPTS // 5 and driver.poll() is None:
                time.sleep(0.01)
            driver.kill()
            guard.cancel()
        kept = lines(folder)
        summary = run_on_ray(ClientOf(site.url), source, folder, shards=4)
        check(site, folder, kept)
        assert summary.all_answered
        assert summary.answered_before >= len(kept)
        asked = len(site.asked)
        assert run_on_ray(ClientOf(site.url), source, folder, shards=4).all_answered
        assert len(site.asked) == asked, "all shards were completed"


@pytest.mark.usefixtures("cluster")
def test_one_rate_for_all_workers(folder: Path) -> None:
    times: list[float] = []
    workers: Counter[str] = Counter()

    def note(request: Request) -> Script:
        times.append(time.monotonic())
        return Say("yes")

    with batch_site_in_thread(note) as site:
        prompts = [f"p{number}" for number in range(500)]
        summary = run_on_ray(ClientOf(site.url), prompts, folder, shards=2, max_per_second=50.0)
    assert summary.all_answered
    for part in folder.glob("part-*.jsonl"):
        workers[part.name] = len(part.read_bytes().splitlines())
    assert min(workers.values()) > 200, "both workers sent their share"
    begin, end = times[0] + 3, times[-1] - 1  # both workers run, and neither has ended
    within = [one for one in times if begin <= one < end]
    assert 45 <= len(within) / (end - begin) <= 55
    for first, one in enumerate(times):
        assert sum(1 for other in times[first : first + 60] if other < one + 1) <= 55


@pytest.mark.usefixtures("cluster")
def test_one_refusal_pauses_all_workers(folder: Path) -> None:
    pause = 4
    times: list[float] = []
    refused: list[float] = []

    def answer_once_no(_: Request) -> Script:
        times.append(time.monotonic())
        if len(times) == 200:
            refused.append(times[-1])
            return Refuse(429, "slow down", retry_after=pause)
        return Pause(0.05), Say("yes")

    with batch_site_in_thread(answer_once_no) as site:
        prompts = [f"p{number}" for number in range(600)]
        summary = run_on_ray(ClientOf(site.url), prompts, folder, shards=2, max_at_once_per_shard=4)
    assert summary.all_answered
    (begin,) = refused
    assert max(later - sooner for sooner, later in pairwise(times)) > pause * 0.75
    assert not [one for one in times if begin + 1 < one < begin + pause * 0.9]
    assert len([one for one in times if one > begin]) > 300, "and then they continued"


@pytest.mark.usefixtures("cluster")
def test_ctrl_c_ends_it_with_grace(source: Path, folder: Path) -> None:
    seen: list[BatchSummary] = []

    def see(summary: BatchSummary) -> None:
        seen.append(summary)
        if summary.answered > 100 and not any(one.answered > 100 for one in seen[:-1]):
            _thread.interrupt_main()

    with batch_site_in_thread(answer) as site:
        with pytest.raises(KeyboardInterrupt):
            run_on_ray(
                ClientOf(site.url), source, folder, shards=4, max_per_second=200, on_progress=see
            )
        asked = len(site.asked)
    assert 100 < asked < PROMPTS
    assert len(lines(folder)) == asked, "running requests had time to end"
    assert not seen[-1].complete


@pytest.mark.usefixtures("cluster")
def test_stopped_by_its_caller(source: Path, folder: Path) -> None:
    with batch_site_in_thread(answer) as site:
        summary = run_on_ray(
            ClientOf(site.url),
            source,
            folder,
            shards=4,
            max_per_second=200,
            stop=lambda: len(site.asked) > 100,
        )
        assert summary.answered == len(lines(folder)) == len(site.asked) < PROMPTS
    assert not summary.complete


class Broken:
    """A client whose constructor fails."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self) -> Any:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("no key in this worker's environment")


@pytest.mark.usefixtures("cluster")
def test_an_exception_of_make_client_is_not_wrapped(folder: Path) -> None:
    with pytest.raises(ValueError, match="no key") as raised:
        run_on_ray(Broken("raises"), ["a", "b"], folder, shards=2)
    assert type(raised.value) is ValueError


@pytest.mark.usefixtures("cluster")
def test_a_shard_that_is_lost_repeatedly(folder: Path) -> None:
    with pytest.raises(ShardLostError, match=r"shard 0 .*run the batch again"):
        run_on_ray(Broken("killed"), ["a"], folder, shards=1, max_retries=1)


@pytest.mark.usefixtures("cluster")
def test_arguments_are_checked_before_anything_runs(folder: Path) -> None:
    make_client = ClientOf("http://127.0.0.1:9")
    settings: dict[str, Any]
    for settings, message in (
        ({"max_at_once": 0}, "max_at_once"),
        ({"max_per_second": 0}, "max_per_second"),
        ({"max_at_once_per_shard": 0}, "max_at_once_per_shard"),
        ({"max_retries": -1}, "max_retries"),
        ({"grace": -1}, "grace"),
        ({"shards": 0}, "of must be"),
        ({"source": iter("ab")}, "source"),
    ):
        arguments: dict[str, Any] = {"source": ["a"], "shards": 2, **settings}
        with pytest.raises(ValueError, match=message):
            run_on_ray(make_client, arguments.pop("source"), folder, **arguments)
    assert not folder.exists() or not [*folder.iterdir()]
    run_on_ray(make_client, [], folder, shards=2)
    with pytest.raises(OutputError, match="2 shards"):
        run_on_ray(make_client, [], folder, shards=3)
