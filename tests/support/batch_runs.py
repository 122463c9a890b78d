"""Runs of `run_batch`, and the lines that they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio

from gprochat_anyio import Client, Retry
from gprochat_anyio.batch import BatchSummary, run_batch
from gprochat_anyio.testing import Refuse, Request, Say, Script

from .batch_site import BatchSite, echo

BOUND = 20.0


def written(out: Path) -> list[dict[str, Any]]:
    whole = out.read_bytes()
    assert whole.endswith(b"\n") or not whole
    return sorted(map(json.loads, whole.splitlines()), key=lambda line: line.get("index", 0))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def texts(out: Path) -> list[str | None]:
    return [line.get("text") for line in written(out)]


async def run(
    at: BatchSite, source: Any, out: Path, *, prefix: str = "", **options: Any
) -> BatchSummary:
    retry = Retry(attempts=1)
    with anyio.fail_after(BOUND):
        async with Client(at.url + prefix, trust_env=False, retry=retry) as client:
            return await run_batch(client, source, out, **options)


def tear(out: Path) -> int:
    """Truncate the output within a line. Return the number of complete lines that are left."""
    whole = out.read_bytes()
    left = whole[: whole.index(b"\n", len(whole) // 2) + 20]
    out.write_bytes(left)
    return left.count(b"\n")


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def some_fail(request: Request) -> Script:
    return Refuse(500, "no") if "fail" in request.prompt else echo(request)


class Held:
    """Site that holds back the replies to some prompts until `go_on` is set."""

    def __init__(self, *held: str) -> None:
        self.held = held
        self.go_on = anyio.Event()
        self.holding = anyio.Event()

    def __call__(self, request: Request) -> Script:
        if request.prompt not in self.held:
            return echo(request)
        self.holding.set()
        return self.go_on.wait, Say(f"re: {request.prompt}")
