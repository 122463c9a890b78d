"""The README's programs run unchanged, and its table of errors is complete."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.embedded_site import ROOT, embedded_site, output_of
from support.snippet_clients import OTHER_WIRES, servers
from support.snippets import run_all, snippets_of

import gprochat_anyio
from gprochat_anyio import GPROChatError
from gprochat_anyio.cli._exit_codes import exit_status

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = [snippet for snippet in snippets_of(README) if snippet.language == "python"]
OF_A_SITE = [
    pytest.param(snippet.code, id=snippet.heading)
    for snippet in PYTHON
    if "Client.from_env(" in snippet.code
]
LINK = re.compile(r"^\[[\w/-]+\]: (\S+)$", re.MULTILINE)
COMMAND = re.compile(r"^<!-- (\w+) command -->\n```sh\n(.*\n)```$", re.MULTILINE)


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with embedded_site() as variables:
        yield variables


@pytest.mark.parametrize("snippet", OF_A_SITE)
def test_snippet_runs(snippet: str, environment: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(snippet, encoding="utf-8")
    assert "said:" in output_of(script, environment)


@pytest.mark.parametrize("wire", OTHER_WIRES)
def test_snippets_run_over_other_wires(wire: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.py" for number in range(len(PYTHON))]
    for path, snippet in zip(paths, PYTHON, strict=True):
        path.write_text(snippet.code, encoding="utf-8")
    with servers() as variables:
        found = run_all(paths, variables, wire=wire)
    for path in paths:
        assert "said:" in found[str(path)].get("printed", ""), found[str(path)]


def test_every_snippet_was_found() -> None:
    assert len(PYTHON) == README.count("```python") > len(OF_A_SITE) > 0


def test_the_two_commands_are_marked() -> None:
    commands = {name: command.strip() for name, command in COMMAND.findall(README)}
    assert commands == {
        "ask": 'python -m pip install -e ".[cli]" && gprochat ask "Hello"',
        "test": "python -m pip install --upgrade pip "
        '&& python -m pip install -e ".[cli,otel,socks]" --group test && python -m pytest',
    }


def test_links_also_work_on_pypi() -> None:
    """PyPI resolves no relative link, except for those within the page."""
    assert {target for target in re.findall(r"\]\(([^)]+)\)", README) if target[0] != "#"} == set()
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    links = LINK.findall(README)
    assert links
    for link in links:
        page, of_documentation = re.subn(rf"^{urls['Documentation']}/en/latest/", "docs/", link)
        file, of_source = re.subn(rf"^{urls['Source']}/(?:blob|tree)/HEAD/", "", link)
        assert of_documentation + of_source == 1, link
        named = re.sub(r"\.html$", ".md", page) if of_documentation else file
        assert (ROOT / named).exists(), link


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
