"""The project's checks, each in its own environment. `nox --list` lists them."""

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
TESTED_EXTRAS = ("cli", "otel", "socks")

# Otherwise `python -m` imports the checkout instead of the installed package.
INSTALLED_ONLY = {"PYTHONSAFEPATH": "1"}


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the suite against the built wheel, on every loop, with branch coverage."""
    session.install(*wheel(session))
    data = f"--data-file={session.create_tmp()}/coverage"
    session.run("coverage", "erase", data)
    run_tests(session, "coverage", "run", data, "-m", "pytest")
    if not session.posargs:
        session.run("coverage", "combine", "--quiet", data)  # the workers' data
        session.run("coverage", "report", data)


@nox.session
def quick(session: nox.Session) -> None:
    """Run the quick tier, in about a minute: no slow tests, and one event loop per async test."""
    session.install("--editable", checkout(), *group("test"))
    session.run("pytest", "--quick", *session.posargs)


@nox.session(python=OLDEST)
def full(session: nox.Session) -> None:
    """Run the suite with all examples and sizes, and every cancellation at each pair of points."""
    session.install(*wheel(session))
    run_tests(session, "pytest", "--full")


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """Run the suite with the lowest version of each dependency that pyproject.toml allows."""
    floors = Path(session.create_tmp(), "floors.txt")
    floors.write_text("".join(f"{floor}\n" for floor in lowest_versions()), encoding="utf-8")
    session.install("--constraint", str(floors), *wheel(session))
    run_tests(session, "pytest")


@nox.session(python=OLDEST)
def httpx2(session: nox.Session) -> None:
    """Run the suite with httpx2 instead of httpx."""
    session.install(*wheel(session), "httpx2")
    session.run("python", "-m", "pip", "uninstall", "--yes", "httpx", "httpcore")
    run_tests(session, "pytest", "--ignore=tests/docs/test_docs.py")  # its examples import httpx


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """Run mypy --strict and pyright, and check that the public API's types are complete."""
    session.install("--editable", checkout(), *group("types"), "nox")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "gprochat_anyio", "--ignoreexternal")


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Check with ruff, codespell and towncrier; `-- --fix` applies ruff's fixes."""
    session.install(*group("lint"))
    if "--fix" in session.posargs:
        session.run("ruff", "check", "--fix")
        session.run("ruff", "format")
    else:
        session.run("ruff", "check")
        session.run("ruff", "format", "--check")
        session.run("codespell")
        session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


@nox.session(python=PYTHONS[1:])
def eager(session: nox.Session) -> None:
    """Run the suite on asyncio with eager tasks, which require Python 3.12."""
    session.install(*wheel(session))
    env = {**INSTALLED_ONLY, "GPROCHAT_EAGER": "1"}
    session.run("pytest", "--loop", "asyncio+eager", *session.posargs, env=env)


@nox.session(python=OLDEST)
def reader_tasks(session: nox.Session) -> None:
    """Run the tests of requests with one reader task per socket, as on Windows."""
    session.install(*wheel(session))
    env = {**INSTALLED_ONLY, "GPROCHAT_READER_TASKS": "1"}
    session.run(
        *("pytest", "tests/guarantees", "tests/request", "tests/transport", *guarantee_tests()),
        "--ignore-glob=*/test_reactor*.py",  # these are about the reactor's selector
        "--ignore=tests/transport/test_pool_quiet.py",
        "--deselect=tests/request/test_stream.py::test_a_reply_has_no_task_of_its_own",
        *session.posargs,
        env=env,
    )


@nox.session(python=OLDEST)
def real_server(session: nox.Session) -> None:
    """Test the client against llama.cpp's own server, which a wheel contains."""
    session.install(*wheel(session), "-r", "tests/real_server/requirements.txt")
    run_tests(session, "pytest", "tests/real_server")


@nox.session(python=OLDEST)
def on_ray(session: nox.Session) -> None:
    """Run batches on a local Ray cluster of two workers, which the session starts."""
    session.install(*wheel(session), "-r", "tests/on_ray/requirements.txt")
    run_tests(session, "pytest", "--numprocesses=0", "tests/on_ray")


@nox.session(python=OLDEST)
def soak(session: nox.Session) -> None:
    """Run random faults and cancellations on each loop; `-- --seconds 600 --seed 1`."""
    session.install(*wheel(session))
    session.run("python", "tests/soak/soak.py", *session.posargs, env=INSTALLED_ONLY)


@nox.session(python=OLDEST)
def fuzz(session: nox.Session) -> None:
    """Fuzz the parsers of external input, guided by coverage; `-- --seconds 600`."""
    session.install(*wheel(session), "atheris")
    for target in ("decoder", "answers", "errors", "api_replies", "site_requests"):
        script = f"tests/fuzz/{target}.py"
        session.run("python", script, *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(python=OLDEST)
def docs_examples(session: nox.Session) -> None:
    """Run the snippets in the README and docs/, and every file in examples/."""
    session.install(*wheel(session))
    files = [f"tests/docs/test_{name}.py" for name in ("readme", "docs", "examples")]
    run_tests(session, "pytest", *files)


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """Build docs/ into docs/_build/html with warnings as errors; `-- linkcheck` checks the links.

    GPROCHAT_DOCS_OFFLINE=1 builds without a network.
    """
    session.install("--editable", ".[cli,otel]", *group("docs"))
    builder = "linkcheck" if "linkcheck" in session.posargs else "html"
    output = f"docs/_build/{builder}"
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "-b", builder, "docs", output)


@nox.session(python=OLDEST)
def bench(session: nox.Session) -> None:
    """Run the benchmarks of the library and its peers."""
    session.install("--editable", checkout(), *group("test"), "aiohttp")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session(python=OLDEST)
def package(session: nox.Session) -> None:
    """Build the sdist, and the wheel from it, into dist/; inspect both."""
    session.install(*group("package"))
    for old in Path("dist").glob("*"):
        old.unlink()
    session.run("python", "-m", "build", "--outdir", "dist", silent=True)
    (source,) = map(str, Path("dist").glob("*.tar.gz"))
    (built,) = map(str, Path("dist").glob("*.whl"))
    session.run("twine", "check", "--strict", source, built)
    session.run("check-wheel-contents", built)
    session.run("python", "-m", "pip", "install", "--force-reinstall", built, silent=True)
    session.run("python", "-c", "import gprochat_anyio as g; g.Client", env=INSTALLED_ONLY)


def guarantee_tests() -> list[str]:
    """Return the test files in docs/guarantees.md, except for those of the embedded site."""
    text = Path("docs", "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)", text)
    return sorted({name for name in named if not name.startswith("tests/site/")})


def wheel(session: nox.Session) -> list[str]:
    """Build the wheel. Return the requirements that install it and its test dependencies."""
    session.install("build")
    out = Path(session.create_tmp(), "dist")
    for old in out.glob("*.whl"):
        old.unlink()
    session.run("python", "-m", "build", "--wheel", "--outdir", str(out), silent=True)
    (built,) = out.glob("*.whl")
    # Otherwise pip skips a wheel of the installed version.
    session.run("python", "-m", "pip", "uninstall", "--yes", "gprochat-anyio", silent=True)
    return [
        f"gprochat-anyio[{','.join(TESTED_EXTRAS)}] @ {built.resolve().as_uri()}",
        *group("test"),
    ]


def checkout() -> str:
    """Return the requirement that installs this checkout with the tested extras."""
    return f".[{','.join(TESTED_EXTRAS)}]"


def group(name: str) -> tuple[str, ...]:
    """Return the requirements in a dependency group. The session's pip may lack `--group`."""
    return nox.project.dependency_groups(PYPROJECT, name)


def run_tests(session: nox.Session, *command: str) -> None:
    session.run(*command, *session.posargs, env=INSTALLED_ONLY)


def lowest_versions() -> list[str]:
    """Return a pin for each `name>=floor` of the library, its tested extras and its tests."""
    pins: list[str] = []
    for line in [
        *PYPROJECT["project"]["dependencies"],
        *(line for extra in TESTED_EXTRAS for line in requirements_of(extra)),
        *group("test"),
    ]:
        requirement = Requirement(line)
        floors = [part.version for part in requirement.specifier if part.operator in (">=", "==")]
        if len(floors) != 1:
            raise ValueError(f"pyproject.toml: {line!r} has no lowest version; add >=")
        marker = f"; {requirement.marker}" if requirement.marker else ""
        pins.append(f"{requirement.name}=={floors[0]}{marker}")
    return sorted(set(pins))


def requirements_of(extra: str) -> list[str]:
    """Return the requirements of an extra, including those of extras in it."""
    own = canonicalize_name(PYPROJECT["project"]["name"])
    found: list[str] = []
    for line in EXTRAS[extra]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == own:
            found += [each for included in requirement.extras for each in requirements_of(included)]
        else:
            found.append(line)
    return found
