"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import gprochat_anyio
from gprochat_anyio import testing

pytest_plugins = ["pytester"]

ROOT = Path(gprochat_anyio.__file__).parent.parent
PLUGIN = "gprochat_anyio.testing._pytest"
LOADED = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))

TESTS = """
import anyio
import pytest
from gprochat_anyio import Client
from gprochat_anyio.testing import NetworkForbiddenError, Pause, Say

async def ask(url):
    async with Client(url) as client:
        return (await client.ask("Hi")).text

def test_in_memory(gprochat_site):
    site = gprochat_site([Say("Hel"), Say("lo")])
    assert anyio.run(ask, site.url) == "Hello"
    assert site.requests[0].prompt == "Hi"
    assert anyio.run(ask, gprochat_site("other").url) == "other"

def test_live(live_gprochat_site):
    site, other = live_gprochat_site("Hello"), live_gprochat_site("other", secret_key="")
    assert anyio.run(ask, site.url) == "Hello"
    assert anyio.run(ask, other.url) == "other"
    assert site.requests[0].prompt == "Hi"

@pytest.mark.anyio
async def test_in_memory_async(gprochat_site):
    assert await ask(gprochat_site("Hello").url) == "Hello"

@pytest.mark.anyio
async def test_live_async(live_gprochat_site):
    assert await ask(live_gprochat_site("Hello").url) == "Hello"
"""

FORBIDDEN = """
import anyio
import pytest
from gprochat_anyio import Client
from gprochat_anyio.testing import NetworkForbiddenError

async def ask():
    async with Client("https://chat.example.org") as client:
        await client.ask("Hi")

def test_forbidden():
    with pytest.raises(NetworkForbiddenError):
        anyio.run(ask)
"""

IN_NO_PROCESS = """
from gprochat_anyio.transport._wiring import switches

def test_not_forbidden():
    assert not switches
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    plugin = () if LOADED else ("-p", PLUGIN)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *plugin, *arguments)


def test_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    run(pytester).assert_outcomes(passed=6)


@pytest.mark.slow
def test_the_option(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FORBIDDEN)
    run(pytester, "--gprochat-forbid-network").assert_outcomes(passed=1)
    pytester.makepyfile(IN_NO_PROCESS)
    run(pytester).assert_outcomes(passed=1)


def test_the_ini_option(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngprochat_forbid_network = true")
    pytester.makepyfile(FORBIDDEN)
    run(pytester).assert_outcomes(passed=1)


def test_it_is_installed_with_the_package() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text() if not LOADED else PLUGIN
    assert PLUGIN in pyproject


@pytest.mark.slow
def test_it_imports_little() -> None:
    code = (
        "import pytest, anyio.pytest_plugin, gprochat_anyio, sys; before = set(sys.modules); "
        f"import {PLUGIN}; print(*sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        cwd=ROOT,
        encoding="utf-8",
        timeout=60,
    )
    assert ran.stdout.split() == ["gprochat_anyio.testing", PLUGIN]


def test_dir_of_the_package() -> None:
    for name in testing._PLACE_OF:
        assert getattr(testing, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = testing.nothing


def test_a_star_import_brings_all_names() -> None:
    names: dict[str, object] = {}
    exec("from gprochat_anyio.testing import *", names)  # noqa: S102 - only a module may do so
    assert testing._PLACE_OF.keys() <= names.keys()
    assert testing._PLACE_OF.keys() <= set(dir(testing))
