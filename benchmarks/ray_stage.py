"""Throughput on Ray: `PromptMapper`, `run_on_ray`, and Ray Data's HTTP stage.

    python benchmarks/ray_stage.py [--prompts 640] [--latency 0.1] [--at-once 16]

The cluster has two workers on this machine. The site serves OpenAI's API in this process. A rate is
the number of prompts divided by the time from the first request to the end of the last reply;
the start of the workers does not count. This needs tests/on_ray/requirements.txt.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import anyio
import ray
from anyio.from_thread import start_blocking_portal

from gprochat_anyio import Client
from gprochat_anyio.batch.on_ray import PromptMapper, run_on_ray
from gprochat_anyio.site import Turn, serve

ROOT = Path(__file__).parent.parent

_WORKERS = 2
_MODEL = "bench"


class Clients:
    """Picklable function that returns a worker's client."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self) -> Client:
        return Client.openai(self._url, model=_MODEL, api_key=None)


class TimedModel:
    """Model with a constant latency that records the times of its calls."""

    def __init__(self, latency: float) -> None:
        self.url = ""
        self._times: list[float] = []
        self._latency = latency

    async def __call__(self, _: Sequence[Turn]) -> AsyncIterator[str]:
        self._times.append(time.monotonic())
        await anyio.sleep(self._latency)
        yield "A reply of a few words."

    def rate_of(self, run: Callable[[], object], prompts: int) -> float:
        """Return the number of prompts per second of a run."""
        self._times.clear()
        run()
        assert len(self._times) == prompts, f"asked {len(self._times)} times"
        return prompts / (self._times[-1] + self._latency - self._times[0])


@contextmanager
def serving(latency: float) -> Iterator[TimedModel]:
    model = TimedModel(latency)
    with start_blocking_portal() as portal:
        served, url = portal.start_task(partial(serve, model))
        model.url = f"{url}/v1"
        try:
            yield model
        finally:
            served.cancel()


def http_stage(rows: list[dict[str, Any]], site: TimedModel) -> None:
    """Ask with Ray Data's HTTP stage."""
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    config = HttpRequestProcessorConfig(
        url=f"{site.url}/chat/completions", batch_size=64, concurrency=_WORKERS, max_retries=0
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {
            "payload": {
                "model": _MODEL,
                "messages": [{"role": "user", "content": row["prompt"]}],
            }
        },
        postprocess=lambda row: {"reply": row["http_response"]["choices"][0]["message"]["content"]},
    )
    replies = processor(ray.data.from_items(rows, override_num_blocks=10)).take_all()
    assert all(row["reply"] for row in replies)


def mapper(rows: list[dict[str, Any]], site: TimedModel, at_once: int) -> None:
    """Ask with `PromptMapper`."""
    dataset = ray.data.from_items(rows, override_num_blocks=10).map_batches(
        PromptMapper,
        fn_constructor_kwargs={"make_client": Clients(site.url), "max_at_once": at_once},
        concurrency=_WORKERS,
        batch_size=64,
    )
    assert all(row["reply"] for row in dataset.take_all())


def shards(rows: list[dict[str, Any]], site: TimedModel, at_once: int) -> None:
    """Ask with `run_on_ray`."""
    with tempfile.TemporaryDirectory(prefix="gprochat-bench-") as folder:
        summary = run_on_ray(
            Clients(site.url), rows, folder, shards=_WORKERS, max_at_once_per_shard=at_once
        )
    assert summary.all_answered


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--prompts", type=int, default=640, help="number of prompts (default 640)")
    add("--latency", type=float, default=0.1, help="seconds of the site for a reply (default 0.1)")
    add("--at-once", type=int, default=16, help="prompts in flight in each worker (default 16)")
    chosen = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    ray.init(
        address="local",
        num_cpus=2 * _WORKERS,  # a dataset's actors occupy one each, and its other tasks need some
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        with serving(chosen.latency) as site:
            rows = [{"prompt": f"Tell me about number {n}."} for n in range(chosen.prompts)]
            base = site.rate_of(lambda: http_stage(rows, site), chosen.prompts)
            print(f"Ray Data's HTTP stage: {base:.1f} prompts/s")
            for name, run in (("PromptMapper", mapper), ("run_on_ray", shards)):
                rate = site.rate_of(lambda run=run: run(rows, site, chosen.at_once), len(rows))
                print(f"{name}: {rate:.1f} prompts/s, {rate / base:.1f} times as many")
    finally:
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
