"""The checks of this project, each in an environment of its own: `nox --list` names them."""

from __future__ import annotations

import re
from pathlib import Path

import nox
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
OLDEST = PYTHONS[0]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]

# Otherwise `python -m` puts the checkout before the installed package.
INSTALLED_ONLY = {"PYTHONSAFEPATH": "1"}


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite against the built wheel, on every loop, with branch coverage."""
    session.install(wheel(session))
    coverage = f"--data-file={session.create_tmp()}/coverage"
    run_tests(session, "coverage", "run", coverage, "-m", "pytest")
    if not session.posargs:
        session.run("coverage", "report", coverage)


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """The suite with the lowest version that pyproject.toml allows of every dependency."""
    floors = Path(session.create_tmp(), "floors.txt")
    floors.write_text("".join(f"{floor}\n" for floor in lowest_versions("test")), encoding="utf-8")
    session.install("--constraint", str(floors), wheel(session))
    run_tests(session, "pytest")


@nox.session(python=OLDEST)
def httpx2(session: nox.Session) -> None:
    """The suite with httpx2 in the place of httpx."""
    session.install(wheel(session), "httpx2")
    session.run("python", "-m", "pip", "uninstall", "--yes", "httpx", "httpcore")
    run_tests(session, "pytest", "--ignore=tests/test_docs.py")  # whose examples import httpx


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """mypy --strict and pyright."""
    session.install("--editable", ".[dev]")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """ruff's rules and its format; `nox -s lint -- --fix` repairs what it can."""
    session.install(next(tool for tool in EXTRAS["dev"] if Requirement(tool).name == "ruff"))
    if "--fix" in session.posargs:
        session.run("ruff", "check", "--fix")
        session.run("ruff", "format")
    else:
        session.run("ruff", "check")
        session.run("ruff", "format", "--check")


@nox.session(python=PYTHONS[1:])
def eager(session: nox.Session) -> None:
    """The suite on asyncio with eager tasks, which Python has from 3.12 on."""
    session.install(wheel(session))
    env = {**INSTALLED_ONLY, "GPROCHAT_EAGER": "1"}
    session.run("pytest", "-k", "asyncio+eager", *session.posargs, env=env)


@nox.session(python=OLDEST)
def reader_tasks(session: nox.Session) -> None:
    """The guarantees with one reader task per socket, as where no selector has a descriptor."""
    session.install(wheel(session))
    env = {**INSTALLED_ONLY, "GPROCHAT_READER_TASKS": "1"}
    session.run("pytest", "tests/guarantees", *guarantee_tests(), *session.posargs, env=env)


@nox.session(python=OLDEST)
def real_server(session: nox.Session) -> None:
    """The client against llama.cpp's own server, which comes in a wheel and downloads nothing."""
    session.install(wheel(session), "-r", "tests/real_server/requirements.txt")
    run_tests(session, "pytest", "tests/real_server")


@nox.session(python=OLDEST)
def soak(session: nox.Session) -> None:
    """Random faults and cancels on each loop; `nox -s soak -- --seconds 600 --seed 1`."""
    session.install(wheel(session))
    session.run("python", "tests/soak/soak.py", *session.posargs, env=INSTALLED_ONLY)


@nox.session(python=OLDEST)
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads foreign bytes, guided by coverage; `nox -s fuzz -- --seconds 600`."""
    session.install(wheel(session), "atheris")
    for target in ("decoder", "answers", "errors", "api_replies", "site_requests"):
        script = f"tests/fuzz/{target}.py"
        session.run("python", script, *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(python=OLDEST)
def docs_examples(session: nox.Session) -> None:
    """Run the snippets of the README and of docs/, and every file of examples/."""
    session.install(wheel(session))
    run_tests(
        session, "pytest", "tests/test_readme.py", "tests/test_docs.py", "tests/test_examples.py"
    )


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """Build docs/ into docs/_build/html, warnings being errors; `-- linkcheck` asks every link.

    GPROCHAT_DOCS_OFFLINE=1 builds without a network.
    """
    session.install("--editable", ".[docs]")
    builder = "linkcheck" if "linkcheck" in session.posargs else "html"
    output = f"docs/_build/{builder}"
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "-b", builder, "docs", output)


@nox.session(python=OLDEST)
def bench(session: nox.Session) -> None:
    """Measure the library side by side with its peers."""
    session.install("--editable", ".[test]", "aiohttp", "httpx2", "openai")
    session.run("python", "benchmarks/run.py", *session.posargs)


def guarantee_tests() -> list[str]:
    """Return the test files that docs/guarantees.md names, but for those of the embedded site."""
    text = Path("docs", "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)", text)
    return sorted({name for name in named if not name.startswith("tests/site/")})


def wheel(session: nox.Session) -> str:
    """Build the wheel, and give the requirement that installs it with what its tests need."""
    session.install("build")
    out = Path(session.create_tmp(), "dist")
    for old in out.glob("*.whl"):
        old.unlink()
    session.run("python", "-m", "build", "--wheel", "--outdir", str(out), silent=True)
    (built,) = out.glob("*.whl")
    # A wheel of the same version would otherwise count as installed already.
    session.run("python", "-m", "pip", "uninstall", "--yes", "gprochat-anyio", silent=True)
    return f"gprochat-anyio[test] @ {built.resolve().as_uri()}"


def run_tests(session: nox.Session, *command: str) -> None:
    session.run(*command, *session.posargs, env=INSTALLED_ONLY)


def lowest_versions(extra: str) -> list[str]:
    """Each `name>=floor` that an extra brings, with those of the extras it includes, as a pin."""
    own = canonicalize_name(PYPROJECT["project"]["name"])
    pins: list[str] = []
    for line in [*PYPROJECT["project"]["dependencies"], *EXTRAS[extra]]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == own:
            for included in requirement.extras:
                pins += lowest_versions(included)
            continue
        floors = [part.version for part in requirement.specifier if part.operator in (">=", "==")]
        if len(floors) != 1:
            raise ValueError(f"pyproject.toml: {line!r} names no lowest version")
        marker = f"; {requirement.marker}" if requirement.marker else ""
        pins.append(f"{requirement.name}=={floors[0]}{marker}")
    return sorted(set(pins))
