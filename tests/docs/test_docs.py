"""Documentation: its programs run, the names it mentions exist, and every public name is in it."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from support.embedded_site import PACKAGE_PATH, ROOT, embedded_site
from support.snippet_clients import OTHER_WIRES, servers
from support.snippets import compiled, is_a_test, prose_of, run_all, snippets_of, takes_a_client

import gprochat_anyio
from gprochat_anyio import Timeouts
from gprochat_anyio.cli._exit_codes import exit_status
from gprochat_anyio.cli._main import gprochat

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
}
SNIPPETS = {
    f"{page.removesuffix('.md')}-{number}-{snippet.heading}".replace("/", "-"): snippet
    for page, text in PAGES.items()
    for number, snippet in enumerate(snippets_of(text), 1)
}
PYTHON = {name: s for name, s in SNIPPETS.items() if s.language == "python"}
FOR_PYTEST = {name: s for name, s in PYTHON.items() if is_a_test(s.code)}
RUN = {name: s for name, s in PYTHON.items() if s.run and name not in FOR_PYTEST}

ABOUT_SITES = {
    "how-to-deploying-a-site-8-Put-a-proxy-in-front-of-it",  # the failure marker
    "how-to-testing-9-Record-a-real-site-and-replay-it",
}
"""Snippets about features that only a GPROChat site has."""

OVER_ANY_WIRE = {
    name: s for name, s in RUN.items() if takes_a_client(s.code) and name not in ABOUT_SITES
}

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:benchmarks|docs|examples|gprochat_anyio|tests)/[\w./-]+)[`:]")
ROLE = re.compile(r"\{py:\w+\}`~?([\w.]+)`")
COMMAND = re.compile(r"\bgprochat (\w+)((?:\\\n|[^|;&#)\n])*)")
DIRECTIVE = re.compile(
    r"^\.\. (?:auto\w+|py:class|py:type|(currentmodule)):: ([\w.]+)", re.MULTILINE
)

PROGRAM: click.Group = gprochat


def ran_over(wire: str, names: Iterable[str], folder: Path) -> dict[str, dict[str, str]]:
    paths = [folder / f"{name}.py" for name in names]
    for path in paths:
        path.write_text(RUN[path.stem].code, encoding="utf-8")
    with servers() as environment:
        found = run_all(paths, environment, wire=wire)
    return {path.stem: found[str(path)] for path in paths}


@pytest.mark.parametrize("wire", ["gprochat", *OTHER_WIRES])
def test_snippets_run(wire: str, tmp_path: Path) -> None:
    """All of a wire in one test, as they share a process."""
    ran = ran_over(wire, RUN if wire == "gprochat" else OVER_ANY_WIRE, tmp_path)
    raised = [f"{name}: {found['raised']}" for name, found in ran.items() if "raised" in found]
    assert not raised, "\n".join(raised)
    if missing := {found["misses"] for found in ran.values() if "misses" in found}:
        pytest.skip(f"NOT ALL SNIPPETS RAN: {', '.join(sorted(missing))} not installed")


def test_snippets_about_sites_do_not_run_over_other_wires(tmp_path: Path) -> None:
    for wire in OTHER_WIRES:
        assert all("raised" in found for found in ran_over(wire, ABOUT_SITES, tmp_path).values())


@pytest.mark.parametrize("name", FOR_PYTEST)
def test_snippet_passes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "test_snippet.py"
    path.write_text(FOR_PYTEST[name].code, encoding="utf-8")
    plugin = "gprochat_anyio.testing._pytest"
    script = (
        "import importlib.metadata, pytest; "
        "found = importlib.metadata.entry_points(group='pytest11'); "
        f"there = any(entry.value == '{plugin}' for entry in found); "
        f"more = [] if there else ['-p', '{plugin}']; "
        f"raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', *more, {str(path)!r}]))"
    )
    with embedded_site() as environment:
        done = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", script],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            env=environment | {"PYTHONPATH": PACKAGE_PATH},
            timeout=60,
        )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name, s in PYTHON.items() if not s.run])
def test_snippet_compiles(name: str) -> None:
    compiled(PYTHON[name].code, name)


@pytest.mark.parametrize("name", [n for n, s in SNIPPETS.items() if s.language == "toml"])
def test_toml(name: str) -> None:
    tomllib.loads(SNIPPETS[name].code)


@pytest.mark.parametrize("name", [n for n, s in SNIPPETS.items() if s.language == "json"])
def test_json(name: str) -> None:
    for line in SNIPPETS[name].code.splitlines():
        json.loads(line)


@pytest.mark.parametrize("name", [n for n, s in SNIPPETS.items() if s.language == "sh"])
def test_commands_have_these_options(name: str) -> None:
    for command, rest in COMMAND.findall(SNIPPETS[name].code):
        found = PROGRAM.get_command(click.Context(PROGRAM), command)
        assert found is not None, command
        known = {option for parameter in found.params for option in parameter.opts}
        words = shlex.split(rest.replace("\\\n", " "))
        assert {word for word in words if word.startswith("-") and word != "-"} <= known


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """MyST resolves links to pages below docs/ and to other files."""
    here = (DOCS / page).parent
    for link in LINK.findall(prose_of(PAGES[page])):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (here / path).resolve() if path else DOCS / page
        assert target.is_file(), link
        if target.suffix == ".md":
            found = target.relative_to(DOCS).as_posix()
            assert not anchor or anchor in anchors(PAGES[found]), link


@pytest.mark.parametrize("page", PAGES)
def test_named_files_and_objects_exist(page: str) -> None:
    for named in NAMED_FILE.findall(prose_of(PAGES[page])):
        assert (ROOT / named).exists(), named
    for directive in re.findall(r"^```\{(?:literal)?include\} (\S+)$", PAGES[page], re.MULTILINE):
        assert ((DOCS / page).parent / directive).is_file(), directive
    for role in ROLE.findall(PAGES[page]):
        assert resolved(role) is not None, role


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {
        f"{line}.md"
        for snippet in SNIPPETS.values()
        if snippet.language == "{toctree}"
        for line in snippet.code.splitlines()
        if line and not line.startswith(":")
    }
    assert listed == PAGES.keys() - {"index.md"}


def test_every_public_name_is_in_the_reference() -> None:
    documented = set()
    for page, text in PAGES.items():
        module = ""
        for current, name in DIRECTIVE.findall(text) if page.startswith("reference/") else ():
            if current:
                module = name
            else:
                documented |= {name, f"{module}.{name}"}
    public = runpy.run_path(str(DOCS / "_extensions" / "public_names.py"))["public_names"]()
    names = {f"{package}.{name}" for package, found in public.items() for name in found}
    assert len(names) > len(gprochat_anyio.__all__)
    assert names <= documented


def test_the_default_timeouts() -> None:
    told = re.findall(r"(\w+): float \| None = ([\d.]+)", PAGES["reference/client.md"])
    assert repr(Timeouts()) == f"Timeouts({', '.join(map('='.join, told))})"
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGES["how-to/timeouts.md"], re.MULTILINE)
    assert Timeouts(**{name: int(limit) for name, limit in rows}) == Timeouts(**limits())


def limits() -> dict[str, float]:
    fresh = Timeouts()
    return {name: getattr(fresh, name) for name in ("connect", "first_chunk", "idle", "total")}


def test_every_command_is_in_the_reference() -> None:
    text = PAGES["reference/cli.md"]
    for command in PROGRAM.list_commands(click.Context(PROGRAM)):
        assert f"\n## gprochat {command}\n" in text
        assert f"\n```{{command-help}} gprochat {command}\n" in text


def test_the_exit_statuses() -> None:
    rows = re.findall(r"^\| (\d+) \|.*?`(\w+Error)`", PAGES["reference/cli.md"], re.MULTILINE)
    assert [status for status, _ in rows] == [str(n) for n in range(2, 11)]
    for status, error in rows:
        assert exit_status(getattr(gprochat_anyio, error)("")) == int(status)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as MyST and GitHub generate them."""
    headings = re.findall(r"^#{1,3} (.*)$", prose_of(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def resolved(name: str) -> Any:
    """Return the object with a fully qualified name."""
    module, _, rest = name.rpartition(".")
    if not module:
        return getattr(import_module("builtins"), rest, None)
    try:
        return getattr(import_module(module), rest, None)
    except ModuleNotFoundError:
        return getattr(resolved(module), rest, None)
