"""Every example runs unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.embedded_site import ROOT, embedded_site, output_of

pytestmark = pytest.mark.slow

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

PRINTED = {
    "ask.py": "first text after ",
    "channel.py": "alphabet",
    "conversation.py": "4 messages saved",
    "fan_out.py": "7: done in ",
    "gather.py": "' ': failed: ",
    "original_provider.py": "User: My name is Ada.\nAssistant: Hello, Ada!",
    "own_channel_asyncio.py": "Name a number: ",
    "own_channel_trio.py": "Name a number: ",
    "own_site.py": "HELLO! FROM! THE! SAME! EVENT! LOOP!",
    "race.py": " won; ",
    "scripted_site.py": "it_leaves_nothing_behind passed",
    "stop_early.py": "characters in time",
    "stream_with_timeouts.py": "You said: Tell me a story",
    "sync_script.py": "characters, stopped: True",
    "task_group.py": "' ': failed: ",
}
"""Part of each example's output."""


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with embedded_site() as variables:
        yield variables


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example: Path, environment: dict[str, str]) -> None:
    assert PRINTED[example.name] in output_of(example, environment)


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} == PRINTED.keys()
