"""A batch that is killed many times loses no line, and asks no recorded prompt again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import Counter
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from support.batch_site import BatchSite, batch_site_in_thread
from support.raw_site import BOUND, running

from gprochat_anyio.testing import Pause, Refuse, Request, Say, Script

PROMPTS_PER_KILL = 40


def respond(request: Request) -> Script:
    pause = Pause(0.01)  # keeps many prompts in flight when the batch is killed
    fails = request.prompt.endswith("7")
    return pause, Refuse(400, "no") if fails else Say(f"re: {request.prompt}")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_at_many_moments(tmp_path: Path, *, full: bool) -> None:
    kills = 50 if full else 10
    number_of_prompts = kills * PROMPTS_PER_KILL
    chance = random.Random(4)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    # a tenth of the prompts are duplicates
    prompts = [
        f"prompt {number % (number_of_prompts * 9 // 10)}" for number in range(number_of_prompts)
    ]
    chance.shuffle(prompts)
    records = ({"prompt": prompt, "id": prompt} for prompt in prompts)
    source.write_text("\n".join(map(json.dumps, records)))
    wanted = Counter(prompts)
    kept: Counter[str] = Counter()
    asked_when_kept: Counter[str] = Counter()
    grown = 0
    with batch_site_in_thread(respond) as site:
        for _ in range(kills):
            kill_one(chance, site, source, out)
            now = whole_lines(out)
            assert not kept - now, "a line was lost"
            grown += now != kept
            asked = site.counts
            for prompt in now:
                if now[prompt] == wanted[prompt] and kept[prompt] < wanted[prompt]:
                    asked_when_kept[prompt] = asked[prompt]
            kept = now
        with command(chance, site, source, out) as process:
            assert process.wait(BOUND) == 1, "some have failed"
        asked = site.counts
    assert grown > kills // 5, "killed too early to show anything"
    assert len(out.read_bytes().splitlines()) == number_of_prompts
    assert whole_lines(out) == wanted
    assert {prompt: asked[prompt] for prompt in asked_when_kept} == asked_when_kept
    assert len(asked_when_kept) > number_of_prompts // 10


def kill_one(chance: random.Random, site: BatchSite, source: Path, out: Path) -> None:
    """Start a batch, and kill it: mostly amid requests, sometimes as it starts."""
    before = len(site.asked)
    with command(chance, site, source, out) as process:
        if chance.random() < 0.2:
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.5))
        else:
            site.wait_for(before + chance.randint(1, 70))
        process.send_signal(signal.SIGKILL)
        process.wait(BOUND)


def command(
    chance: random.Random, site: BatchSite, source: Path, out: Path
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    arguments = ("--url", site.url, "--quiet", "--sync-every=0.02")
    setup = "import gprochat_anyio.batch._journal as j; j.TICK = 0.01"
    backend = chance.choice(["asyncio", "trio"])
    return running(
        "batch", str(source), "--out", str(out), f"--backend={backend}", *arguments, setup=setup
    )


def whole_lines(out: Path) -> Counter[str]:
    """Return the number of complete lines of each prompt."""
    lines = out.read_bytes().split(b"\n")[:-1] if out.exists() else []
    return Counter(line["id"] for line in map(json.loads, lines))
