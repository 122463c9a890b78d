"""Every shield in the package ends by itself, so that no cancellation waits for ever.

`SHIELDS` lists each with its limit. Shields that only wait for the library's own tasks, which wait
for nothing, are measured in event loop turns by test_promptness.py.
"""

from __future__ import annotations

import ast
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.http_libraries import httpx
from support.loops import virtual

import gprochat_anyio
from gprochat_anyio import Client, Retry
from gprochat_anyio._request.model_texts import CLOSING_SECONDS, Texts
from gprochat_anyio.batch._journal import Journal
from gprochat_anyio.site import Turn

PACKAGE = Path(gprochat_anyio.__file__).parent

SHIELDS = Counter(
    {
        "_fanout/bare_task_group.py": 1,  # tasks that a block cancels: test_promptness.py
        "_request/background_exchange.py": 1,  # closing, for at most a second: below
        "_request/foreign.py": 1,  # closing a foreign transport, for at most a second: below
        "batch/_journal.py": 1,  # at most 8 MiB to the disk, in a worker thread: below
        "_request/model_texts.py": 1,  # closing a model, for at most a second: below
        "site/_lifespan.py": 2,  # shutdown, for at most a second: site/test_site_lifespan.py
    }
)


@pytest.mark.slow
def test_the_list_is_complete() -> None:
    found: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (isinstance(node, ast.keyword) and node.arg == "shield") or (
                isinstance(node, ast.Assign)
                and any(
                    isinstance(target, ast.Attribute) and target.attr == "shield"
                    for target in node.targets
                )
            ):
                found[path.relative_to(PACKAGE).as_posix()] += 1
    assert found == SHIELDS


async def seconds_cancelled(operation: Any) -> float:
    """Return the duration of an operation that is cancelled as it begins."""
    began = anyio.current_time()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await operation()
    return anyio.current_time() - began


class _Stuck(httpx.AsyncBaseTransport):
    """A transport whose responses have one text, and never finish closing."""

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"text"
            await anyio.sleep_forever()

        async def aclose(self) -> None:
            await anyio.sleep_forever()

    async def handle_async_request(self, request: Any) -> Any:
        headers = {"content-type": "text/plain", "content-length": "9"}
        return httpx.Response(200, headers=headers, stream=self.Stream())


@virtual
async def test_a_foreign_transport_that_does_not_close() -> None:
    async with Client("http://site.test", transport=_Stuck(), retry=Retry(attempts=1)) as client:
        began = anyio.current_time()
        with anyio.move_on_after(5) as scope:
            await client.ask("hi")
        assert scope.cancelled_caught
        assert anyio.current_time() - began == pytest.approx(6)


@virtual
async def test_a_model_that_does_not_close() -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            yield "text"
        finally:
            await anyio.sleep_forever()

    texts = Texts(model, (Turn("user", "hi"),))
    assert await texts.next() == "text"
    assert await seconds_cancelled(texts.aclose) == pytest.approx(CLOSING_SECONDS)


async def test_a_journal_waits_for_the_disk_only(tmp_path: Path) -> None:
    """The write completes despite cancellation. Meanwhile the event loop runs."""
    journal = Journal(tmp_path / "out", sync_every=1.0)
    await anyio.to_thread.run_sync(journal.open)
    journal.put(b"line\n")
    turns = 0
    go = threading.Event()
    write_out = journal._write_out

    def slow(**kwargs: Any) -> None:
        assert go.wait(10)
        write_out(**kwargs)

    journal._write_out = slow  # type: ignore[method-assign]

    async def count() -> None:
        nonlocal turns
        while turns < 50:
            turns += 1
            await anyio.lowlevel.checkpoint()
        go.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await seconds_cancelled(journal.aclose)
    assert turns == 50
    assert (tmp_path / "out").read_bytes() == b"line\n"
