"""The README's Python runs as it is, and what it says of errors is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_site import ROOT, embedded_site, output_of
from snippets import snippets_of

import gprochat_anyio
from gprochat_anyio import GPROChatError
from gprochat_anyio.cli._exits import exit_status

README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = [
    pytest.param(snippet.code, id=snippet.heading)
    for snippet in snippets_of(README)
    if snippet.language == "python"
]
COMMAND = re.compile(r"^<!-- (\w+) command -->\n```sh\n(.*\n)```$", re.MULTILINE)


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with embedded_site() as variables:
        yield variables


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet_runs(snippet: str, environment: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(snippet, encoding="utf-8")
    assert "said:" in output_of(script, environment)


def test_every_snippet_was_found() -> None:
    assert len(SNIPPETS) == README.count("```python") > 0


def test_the_two_commands_are_marked() -> None:
    commands = {name: command.strip() for name, command in COMMAND.findall(README)}
    assert commands == {
        "ask": 'python -m pip install -e ".[cli]" && gprochat ask "Hello"',
        "test": 'python -m pip install -e ".[test]" && python -m pytest',
    }


def test_every_error_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", README, re.MULTILINE)
    public = {name: getattr(gprochat_anyio, name) for name in gprochat_anyio.__all__}
    exported = {
        name: value
        for name, value in public.items()
        if isinstance(value, type) and issubclass(value, GPROChatError)
    }
    del exported["GPROChatError"]
    assert {name for name, _ in rows} == exported.keys()
    for name, status in rows:
        assert exit_status(exported[name]("")) == int(status)
