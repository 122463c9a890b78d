"""Files for contributors are correct: names, nox sessions, files, pinned actions."""

from __future__ import annotations

import ast
import re
import runpy
import tomllib

import pytest
from support.embedded_site import ROOT
from support.snippets import prose_of

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"].keys()
GROUPS = PYPROJECT["dependency-groups"].keys()
INSTALLS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "docs/index.md", ".readthedocs.yaml", ".ci/run")
}


def test_contributing_lists_the_sessions_of_nox() -> None:
    body = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
    sessions = {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef)
        and any("session" in ast.unparse(mark) for mark in node.decorator_list)
    }
    assert set(re.findall(r"^\| `nox -s (\w+)`", CONTRIBUTING, re.MULTILINE)) == sessions


def test_the_files_that_contributing_names_exist() -> None:
    named = re.findall(r"`((?:tests|docs|news|gprochat_anyio)/[\w./-]*)`", CONTRIBUTING)
    named += re.findall(r"`([A-Z_]+\.md)`", CONTRIBUTING)
    named += re.findall(r"\bpytest (tests/[\w./-]+)", CONTRIBUTING + ARCHITECTURE)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_files_that_the_tour_names_exist() -> None:
    there = {
        path.name
        for folder in ("gprochat_anyio", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    named = re.findall(r"`(?:\w+/)*(\w+\.py)`", prose_of(ARCHITECTURE))
    assert len(named) > 50
    assert set(named) <= there


@pytest.mark.parametrize("name", INSTALLS)
def test_installed_extras_and_groups_exist(name: str) -> None:
    extras = re.findall(r"(?:gprochat-anyio|\")\.?\[([\w,]+)\]", INSTALLS[name])
    groups = re.findall(r"--group (\w+)", INSTALLS[name])
    assert extras
    assert {extra for found in extras for extra in found.split(",")} <= EXTRAS
    assert set(groups) <= GROUPS


def test_the_first_page_lists_the_extras() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", INSTALLS["docs/index.md"], re.MULTILINE)
    assert set(rows) == EXTRAS


def test_actions_are_pinned_by_hash() -> None:
    used = [
        line.strip()
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert used
    pinned = re.compile(r"- uses: [\w./-]+@[0-9a-f]{40} # v[\d.]+")
    assert [line for line in used if not pinned.fullmatch(line)] == []


def test_every_public_name_has_a_type_test() -> None:
    text = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "typing").glob("*.py")
    )
    words = set(re.findall(r"\w+", text))
    public = runpy.run_path(str(ROOT / "docs" / "_extensions" / "public_names.py"))["public_names"]
    names = {name for found in public().values() for name in found}
    assert len(names) > len(GROUPS)
    assert names - words == set()
