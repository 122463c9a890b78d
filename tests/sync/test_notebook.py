"""In a notebook, the kernel's main thread runs an event loop, and the cells within it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kernel import Cell, Ran, run_cells
from support.raw_site import END, HEAD, Exchange, RawSite, environment, raw_site

pytestmark = pytest.mark.slow

LOUD = Cell("import warnings; warnings.simplefilter('always', ResourceWarning)")
LOOP = "import asyncio; asyncio.get_running_loop().is_running()"
OPENED = "from gprochat_anyio import SyncClient; client = SyncClient.from_env()"
GATHERED = "[outcome.unwrap().text for outcome in client.gather(['a', 'b'])]"
TALK = """
talk = client.conversation()
talk.ask("one"), talk.ask("two")
[message.content for message in talk.messages]
"""


def answer(exchange: Exchange) -> None:
    """Echo the prompt. The reply "endless" does not end.

    The site serves one connection at a time, so a reply shows that the previous client has left.
    """
    exchange.send(HEAD)
    exchange.text(exchange.prompt)
    if exchange.prompt == "endless":
        exchange.until_left()
    else:
        exchange.send(END)


@pytest.fixture
def site() -> Iterator[RawSite]:
    with raw_site(answer) as site:
        yield site


def ran(site: RawSite, folder: Path, *cells: Cell) -> list[Ran]:
    _, *found = run_cells([LOUD, *cells], environment(GPROCHAT_URL=site.url), folder)
    return found


def test_sync_client(site: RawSite, tmp_path: Path) -> None:
    assert ran(
        site,
        tmp_path,
        Cell(LOOP),
        Cell(OPENED),
        Cell("client.ask('Hi').text"),
        Cell("for chunk in client.stream('Hi'): print(chunk)"),
        Cell(GATHERED),
        Cell(TALK),
        Cell("client.close()"),
        Cell("client.ask('Hi')"),
    ) == [
        Ran("True"),
        Ran(""),
        Ran("'Hi'"),
        Ran("Hi\n"),
        Ran("['a', 'b']"),
        Ran("['one', 'one', 'two', 'two']"),
        Ran(""),
        Ran("", raised="Unusable"),
    ]


def test_interrupted(site: RawSite, tmp_path: Path) -> None:
    """The cell ends with KeyboardInterrupt, or handles it, and the client remains usable."""
    block = "with client.stream('endless') as chunks:\n for chunk in chunks: print(chunk)"
    loop = "for chunk in client.stream('endless'): print(chunk)"
    caught = f"try:\n {loop}\nexcept KeyboardInterrupt: print('caught')"
    assert ran(
        site,
        tmp_path,
        Cell(OPENED),
        Cell(loop, interrupt_at="endless"),
        Cell("client.ask('Hi').text"),
        Cell(block, interrupt_at="endless"),
        Cell("client.ask('Hi').text, chunks.text"),
        Cell(caught, interrupt_at="endless"),
        Cell("print('asking'); client.ask('endless')", interrupt_at="asking"),
        Cell("client.ask('Hi').text"),
        Cell("client.close()"),
    ) == [
        Ran(""),
        Ran("endless\n", raised="KeyboardInterrupt"),
        Ran("'Hi'"),
        Ran("endless\n", raised="KeyboardInterrupt"),
        Ran("('Hi', 'endless')"),
        Ran("endless\ncaught\n"),
        Ran("asking\n", raised="KeyboardInterrupt"),
        Ran("'Hi'"),
        Ran(""),
    ]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_kernel_ends_with_a_reply_open(site: RawSite, tmp_path: Path, backend: str) -> None:
    assert ran(
        site,
        tmp_path,
        Cell("from gprochat_anyio import SyncClient"),
        Cell(f"client = SyncClient.from_env(backend={backend!r})"),
        Cell("chunks = iter(client.stream('endless')); next(chunks)"),
    ) == [Ran(""), Ran(""), Ran("'endless'")]


def test_await_at_the_top_of_a_cell(site: RawSite, tmp_path: Path) -> None:
    """On asyncio a client lives for many cells. With Trio each cell has its own event loop."""
    block = "async with Client.from_env() as client:\n"
    stream = f"{block} async with client.stream('endless') as chunks:\n"
    assert ran(
        site,
        tmp_path,
        Cell("from gprochat_anyio import Client; client = Client.from_env()"),
        Cell("(await client.ask('Hi')).text"),
        Cell("async with client.stream('Hi') as chunks: print(await chunks.read())"),
        Cell("await client.aclose()"),
        Cell("%autoawait trio"),
        Cell(f"{block} print((await client.ask('Hi')).text)"),
        Cell(f"{stream}  async for chunk in chunks: print(chunk)", interrupt_at="endless"),
        Cell(f"{block} print((await client.ask('Hi')).text)"),
    ) == [
        Ran(""),
        Ran("'Hi'"),
        Ran("Hi\n"),
        Ran(""),
        Ran(""),
        Ran("Hi\n"),
        Ran("endless\n", raised="KeyboardInterrupt"),
        Ran("Hi\n"),
    ]
