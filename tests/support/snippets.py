"""The snippets of Markdown pages, extracted and run as a reader would run them.

As a script, it runs the given files, and prints their results as JSON.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import inspect
import io
import json
import os
import re
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from .embedded_site import PACKAGE_PATH

OPTIONAL = ("httpx", "httpx2", "openai", "opentelemetry")
"""Packages without which a snippet is not run."""

TYPED = "Hello\n\nAnd you?\n"
"""Standard input of a snippet."""

NOT_RUN = "<!-- not run: "
"""Comment before a snippet that is only compiled, with the reason."""

_FENCE = re.compile(r"^(`{3,})(\{?[\w-]*\}?)[^\n`]*\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page.

    :param heading: The heading above it, as part of a test's name.
    :param language: The language of the fence: `python`, `sh`, or a directive, `{eval-rst}`.
    """

    heading: str
    language: str
    code: str
    run: bool = True


def snippets_of(markdown: str) -> Iterator[Snippet]:
    """Yield the fenced blocks of a page."""
    for found in _FENCE.finditer(markdown):
        before = markdown[: found.start()]
        headings = _HEADING.findall(_FENCE.sub("", before))
        heading = re.sub(r"[^\w]+", "-", headings[-1] if headings else "").strip("-")
        *_, line = ["", *before.splitlines()]
        yield Snippet(heading, found[2], found[3], run=not line.startswith(NOT_RUN))


def prose_of(markdown: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", markdown)


def is_a_test(code: str) -> bool:
    """Return True for a file for pytest, which defines tests and does not call them."""
    tests = set(re.findall(r"^(?:async )?def (test_\w+)", code, re.MULTILINE))
    return bool(tests) and not any(code.count(name) > 1 for name in tests)


def compiled(code: str, name: str) -> Any:
    """Compile a snippet, into a coroutine's code if it awaits outside of functions."""
    return compile(code, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def takes_a_client(code: str) -> bool:
    """Return True for a snippet that uses the reader's own client."""
    given = re.search(r"\bclient[.,)]", code) and not re.search(r"\bas client\b|\bclient =", code)
    return "Client.from_env(" in code or bool(given)


def run_all(
    paths: Sequence[Path], environment: Mapping[str, str], *, wire: str = "gprochat"
) -> dict[str, dict[str, str]]:
    """Run snippets in a single process. Return the output, exception or missing package of each.

    :param wire: The API of the clients that they are given, or make by `Client.from_env`.
    """
    path = os.pathsep.join([PACKAGE_PATH, str(Path(__file__).parents[1])])
    ran = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", "-m", "support.snippets", wire, *map(str, paths)],
        check=False,
        capture_output=True,
        env={**environment, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": path, "PYTHONSAFEPATH": ""},
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    found: dict[str, dict[str, str]] = json.loads(ran.stdout)
    return found


def _main() -> None:
    from .snippet_clients import lead_clients  # noqa: PLC0415 - only the child process needs it

    _, wire, *paths = sys.argv
    lead_clients(wire)
    json.dump({path: _ran(path) for path in paths}, sys.stdout)


def _ran(path: str) -> dict[str, str]:
    unraisable: list[str] = []
    sys.unraisablehook = lambda what: unraisable.append(f"{what.err_msg} {what.exc_value!r}")
    sys.stdin = io.StringIO(TYPED)
    printed = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(io.StringIO()),  # for logging
        ):
            # the SDK abandons its own generators, of which Trio warns
            warnings.filterwarnings(
                "ignore", r"Async generator '(openai|httpx2)\.", ResourceWarning
            )
            _run(path)
            gc.collect()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OPTIONAL:
            return {"misses": str(error.name)}
        return {"raised": traceback.format_exc()}
    except BaseException:  # noqa: BLE001 - reported by the test
        return {"raised": traceback.format_exc()}
    return {"raised": "\n".join(unraisable)} if unraisable else {"printed": printed.getvalue()}


def _run(path: str) -> None:
    code = compiled(Path(path).read_text(encoding="utf-8"), path)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, {"__name__": "__main__"})  # noqa: S102 - our own code
        return
    for backend in ("asyncio", "trio"):
        anyio.run(_await, code, backend=backend)


async def _await(code: Any) -> None:
    """Run a snippet that awaits outside of functions."""
    from gprochat_anyio import Client  # noqa: PLC0415 - the package under test

    async with Client.from_env() as client:
        names = {"__name__": "snippet", "client": client, "site": os.environ["GPROCHAT_URL"]}
        await eval(code, names)  # noqa: S307 - our own code


if __name__ == "__main__":
    _main()
