"""Shards that are killed many times lose no line, and ask no recorded prompt again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.shard_crashes import crash


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    found = crash(tmp_path, prompts=300, shards=3, kills=3, seed=4)
    assert found.killed == 9
    assert found.grown > 2, "killed too early to show anything"
    assert found.lost == 0
    assert found.kept > 10
    assert found.asked_again == 0
    assert found.lines == found.wanted
    assert found.order == list(range(300))
    assert found.merged is not None
    assert found.merged.complete
    assert (found.merged.answered, found.merged.failed) == (270, 30)
