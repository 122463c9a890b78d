"""The source of `run_batch`: lines, items, files, and its errors."""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.batch_runs import Held, run, texts, written
from support.batch_site import batch_site

from gprochat_anyio import Message
from gprochat_anyio.batch import BatchSummary, run_batch
from gprochat_anyio.testing import Request, Script, scripted_site

pytestmark = pytest.mark.usefixtures("quick_ticks")


class TestSource:
    async def test_of_json_lines(self, tmp_path: Path, out: Path) -> None:
        source = tmp_path / "in.jsonl"
        source.write_bytes(
            b'\xef\xbb\xbf{"prompt": "one", "id": "a", "tag": [1]}\r\n'
            b"\n"
            b'{"prompt": \n'
            b'{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "t"}]}'
        )
        bad = []
        async with batch_site() as site:
            summary = await run(site, source, out, on_bad_line=lambda *seen: bad.append(seen))
        first, second, third = written(out)
        assert (first["id"], first["tag"], first["text"]) == ("a", [1], "re: one")
        assert first["timing"].keys() == {
            "connect", "first_chunk", "total", "chunks", "characters", "attempts",
        }  # fmt: skip
        assert second["error"]["type"] == "InvalidPromptError"
        assert bad == [(3, second["error"]["message"])]
        assert third["text"] == "re: s\n\nt"
        assert (summary.answered, summary.failed, summary.complete) == (2, 1, True)
        assert not summary.all_answered
        assert summary.failures == {"InvalidPromptError": 1}
        assert summary.characters == sum(map(len, filter(None, texts(out))))

    async def test_of_lines(self, tmp_path: Path, out: Path) -> None:
        source = tmp_path / "in.txt"
        source.write_text('one\n\n  {"two"\nthree')
        async with batch_site() as site:
            summary = await run(site, str(source), out)
            assert texts(out) == ["re: one", 're:   {"two"', "re: three"]
            assert summary.all_answered
            await run(site, source, out, format="jsonl")
        assert len(written(out)) == 6, "as JSON, the lines have other keys"

    @pytest.mark.parametrize(
        ("data", "wanted"),
        [
            (b'\n {"prompt": "one"}\n{"prompt": "two"}', ["re: one", "re: two"]),
            (b'one\n{"prompt": "two"}', ["re: one", 're: {"prompt": "two"}']),
            (b"", []),
        ],
    )
    async def test_of_a_file_in_memory(self, out: Path, data: bytes, wanted: list[str]) -> None:
        async with batch_site() as site:
            await run(site, io.BytesIO(data), out)
        assert texts(out) == wanted

    async def test_a_long_line_is_invalid_and_not_asked(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gprochat_anyio.batch._lines.LineSplitter.__init__.__defaults__", (9,))
        async with batch_site() as site:
            summary = await run(site, io.BytesIO(b"0123456789\nHi\n"), out)
        assert site.asked == []
        assert summary.failed == 2

    @pytest.mark.parametrize("kind", ["list", "generator", "async"])
    async def test_of_items(self, out: Path, kind: str) -> None:
        items = ["one", Message("user", "two"), {"prompt": "three", "id": 3}, 4, {"id": 5}]

        async def later() -> AsyncIterator[Any]:
            for item in items:
                yield item

        source = {"list": items, "generator": iter(items), "async": later()}[kind]
        reported: list[BatchSummary] = []
        async with batch_site() as site:
            await run(site, source, out, on_progress=reported.append)
        assert texts(out) == ["re: one", "re: two", "re: three", None, None]
        assert [line["id"] for line in written(out)] == [None, None, 3, None, 5]
        assert reported[-1].total == 5

    async def test_an_error_of_the_source_is_raised_after_running_prompts_end(
        self, out: Path
    ) -> None:
        failure = ZeroDivisionError()
        held = Held("two")

        def items() -> Iterable[str]:
            yield "one"
            yield "two"
            raise failure

        async with batch_site(held) as site, anyio.create_task_group() as tg:

            async def let_go() -> None:
                await held.holding.wait()
                held.go_on.set()

            tg.start_soon(let_go)
            with pytest.raises(ZeroDivisionError) as caught:
                await run(site, items(), out)
            assert caught.value is failure
        assert texts(out) == ["re: one", "re: two"]

    async def test_is_read_as_slots_become_free(self, out: Path) -> None:
        pulled = most = 0
        async with batch_site() as site:

            async def items() -> AsyncIterator[str]:
                nonlocal pulled, most
                for number in range(50):
                    pulled += 1
                    most = max(most, pulled - len(site.asked))
                    yield f"{number}"

            await run(site, items(), out, max_at_once=3)
        assert most <= 5

    async def test_closes_a_generator(self, out: Path) -> None:
        closed = []

        async def items() -> AsyncIterator[str]:
            try:
                yield "one"
                await anyio.sleep_forever()
            finally:
                closed.append(True)

        stop = anyio.Event()
        stop.set()
        async with batch_site() as site, anyio.create_task_group() as tg:
            stop = anyio.Event()

            def respond(request: Request) -> Script:
                stop.set()
                return request.prompt

            site.answer = respond
            tg.start_soon(partial(run, site, items(), out, stop=stop))
        assert closed == [True]
        assert texts(out) == ["one"]


@pytest.mark.parametrize("make", [tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile])
async def test_a_temporary_file(out: Path, make: Callable[..., Any]) -> None:
    """Accept wrappers that behave like files."""
    async with scripted_site(lambda request: request.prompt) as site, site.client() as client:
        with make(mode="w+b") as file:
            file.write(b'{"prompt": "one"}\n{"prompt": "two"}\n')
            file.seek(0)
            await run_batch(client, file, out)
            assert texts(out) == ["one", "two"]
        with make(mode="w+") as file, pytest.raises(ValueError, match="binary mode"):
            await run_batch(client, file, out)
        assert len(site.requests) == 2
