"""Cancellation at any suspension: no file stays open, and the output is complete lines."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import anyio
import pytest
from support.batch_site import batch_site

from gprochat_anyio import Client
from gprochat_anyio.batch import _journal as journal_module
from gprochat_anyio.batch import run_batch
from gprochat_anyio.testing import Injection, cancelled, injections

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_garbage_collector")]

ITEMS = ["one", "two", "three", "", "five"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "TICK", 0.001)


@pytest.mark.parametrize("kind", ["file", "items"])
async def test_cancelled_at_every_suspension(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": item}) + "\n" for item in ITEMS))
    out = tmp_path / "out"
    most = 0
    async with batch_site() as site:
        for moment, native in injections():
            at = 0
            while True:
                at += 1
                descriptors = open_files(tmp_path)
                async with Client(site.url, trust_env=False) as client:

                    async def operation(client: Client = client) -> None:
                        asked = source if kind == "file" else iter(ITEMS)
                        await run_batch(
                            client, asked, out, max_at_once=2, on_progress=lambda _: None
                        )

                    before = len(site.asked)
                    end = await cancelled(Injection(at, moment, native), operation)
                    place = f"at {at}, {moment}, {native}"
                    assert open_files(tmp_path) == descriptors, place
                    assert names(tmp_path) <= {"in.jsonl", "out"}, place
                    kept = content(out)
                    assert not kept or kept.endswith(b"\n"), place
                    keys = Counter(json.loads(line)["key"] for line in kept.splitlines())
                    assert set(keys.values()) <= {1}, place
                    with anyio.fail_after(20):
                        await operation()
                    assert len(content(out).splitlines()) == len(ITEMS), place
                    assert len(set(site.asked[before:])) == 4
                    out.unlink()
                if end == "not reached":
                    break
            most = max(most, at)
    assert most > 8


def content(out: Path) -> bytes:
    return out.read_bytes() if out.exists() else b""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def open_files(folder: Path) -> list[str]:
    if not os.path.exists("/proc/self/fd"):  # noqa: PTH110
        return []
    found = []
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        except OSError:  # the descriptor of the listing itself
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return sorted(found)
