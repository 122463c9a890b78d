"""`run_batch`: sources, lines of the output, failures, and later runs."""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.batch_site import BatchSite, batch_site, echo
from support.blocked import all_tasks_blocked

from gprochat_anyio import Client, GPROChatError, Message, Retry, Timeouts
from gprochat_anyio.batch import BatchSummary, OutputBusyError, OutputError, run_batch
from gprochat_anyio.batch import _journal as journal_module
from gprochat_anyio.batch._journal import Journal
from gprochat_anyio.testing import Hang, Refuse, Request, Say, Script, scripted_site

BOUND = 20.0

pytestmark = pytest.mark.usefixtures("quick_ticks")


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "TICK", 0.001)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "replies.jsonl"


def written(out: Path) -> list[dict[str, Any]]:
    whole = out.read_bytes()
    assert whole.endswith(b"\n") or not whole
    return sorted(map(json.loads, whole.splitlines()), key=lambda line: line.get("index", 0))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def texts(out: Path) -> list[str | None]:
    return [line.get("text") for line in written(out)]


async def run(
    at: BatchSite, source: Any, out: Path, *, prefix: str = "", **options: Any
) -> BatchSummary:
    retry = Retry(attempts=1)
    with anyio.fail_after(BOUND):
        async with Client(at.url + prefix, trust_env=False, retry=retry) as client:
            return await run_batch(client, source, out, **options)


def tear(out: Path) -> int:
    """Truncate the output within a line. Return the number of complete lines that are left."""
    whole = out.read_bytes()
    left = whole[: whole.index(b"\n", len(whole) // 2) + 20]
    out.write_bytes(left)
    return left.count(b"\n")


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def some_fail(request: Request) -> Script:
    return Refuse(500, "no") if "fail" in request.prompt else echo(request)


class Held:
    """Site that holds back the replies to some prompts until `go_on` is set."""

    def __init__(self, *held: str) -> None:
        self.held = held
        self.go_on = anyio.Event()
        self.holding = anyio.Event()

    def __call__(self, request: Request) -> Script:
        if request.prompt not in self.held:
            return echo(request)
        self.holding.set()
        return self.go_on.wait, Say(f"re: {request.prompt}")


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


class TestRefuses:
    @pytest.mark.parametrize(
        "options",
        [
            {"sync_every": -1},
            {"sync_every": math.nan},
            {"grace": -1},
            {"format": "csv"},
            {"source": 5},
            {"source": io.StringIO("Hi")},
            {"source": {"prompt": "Hi"}},
            {"max_at_once": 0},
            {"max_per_second": 0},
            {"limiter": 5},
        ],
    )
    async def test_invalid_arguments(self, out: Path, options: dict[str, Any]) -> None:
        options = {"source": [], **options}
        async with Client("http://site.test") as client:
            with pytest.raises(ValueError):
                await run_batch(client, sink=out, **options)
        assert names(out.parent) == []

    async def test_a_missing_source(self, tmp_path: Path, out: Path) -> None:
        async with Client("http://site.test") as client:
            with pytest.raises(FileNotFoundError):
                await run_batch(client, tmp_path / "none", out)
        assert names(tmp_path) == []

    async def test_its_own_input_as_output(self, tmp_path: Path) -> None:
        source = jsonl(tmp_path / "in.jsonl")
        (tmp_path / "link").symlink_to(source)
        async with Client("http://site.test") as client:
            with pytest.raises(OutputError, match="the input itself"):
                await run_batch(client, source, tmp_path / "link")

    async def test_an_output_of_another_program(self, tmp_path: Path) -> None:
        source = jsonl(tmp_path / "in.jsonl", {"prompt": "Hi"})
        other = jsonl(tmp_path / "other.jsonl", {"id": 1, "prompt": "Hi"})
        before = written(other)
        async with Client("http://site.test") as client:
            with pytest.raises(OutputError, match="line 1 is not a batch's"):
                await run_batch(client, source, other)
        assert written(other) == before

    async def test_a_second_run(self, tmp_path: Path, out: Path) -> None:
        held = Held("one")
        async with batch_site(held) as site, anyio.create_task_group() as tg:
            tg.start_soon(run, site, ["one"], out)
            await held.holding.wait()
            with pytest.raises(OutputBusyError, match="another run is writing"):
                await run(site, ["one"], out)
            held.go_on.set()
        assert texts(out) == ["re: one"]
        assert names(tmp_path) == [out.name]


class TestResume:
    async def test_asks_prompts_without_a_line(self, out: Path) -> None:
        async with batch_site() as site:
            await run(site, ["one", "two"], out)
            summary = await run(site, ["one", "two", "three"], out)
            assert site.counts == {"one": 1, "two": 1, "three": 1}
        assert texts(out) == ["re: one", "re: two", "re: three"]
        assert (summary.answered, summary.answered_before, summary.done) == (1, 2, 3)
        assert summary.all_answered

    async def test_matches_prompts_by_key_not_position(self, out: Path) -> None:
        async with batch_site() as site:
            await run(site, ["a", "b", "c", "b"], out)
            summary = await run(site, ["new", "b", "b", "b", "a"], out)
            assert site.counts == {"a": 1, "b": 3, "c": 1, "new": 1}
        assert summary.answered_before == 3
        assert Counter(texts(out)) == {"re: a": 1, "re: b": 3, "re: c": 1, "re: new": 1}

    async def test_duplicates_get_a_line_each(self, out: Path) -> None:
        async with batch_site() as site:
            for done in (2, 5, 5):
                await run(site, ["same"] * done, out)
                assert len(written(out)) == done
        assert len({line["key"] for line in written(out)}) == 1

    async def test_another_site_is_asked_again_unless_it_has_the_same_name(self, out: Path) -> None:
        async with batch_site() as site:
            await run(site, ["one"], out)
            await run(site, ["one"], out, prefix="/other")
            await run(site, ["two"], out, site="s")
            await run(site, ["two"], out, site="s", prefix="/other")
        assert texts(out).count("re: one") == 2
        assert texts(out).count("re: two") == 1

    async def test_failures_are_asked_again_only_with_retry_failed(self, out: Path) -> None:
        items = ["one", "fail two", "", "fail three"]
        async with batch_site(some_fail) as site:
            assert (await run(site, items, out)).failed == 3
            summary = await run(site, items, out)
            assert (summary.failed, summary.failed_before) == (0, 3)
            assert not summary.all_answered
            site.answer = echo
            summary = await run(site, items, out, retry_failed=True)
            assert site.counts == {"one": 1, "fail two": 2, "fail three": 2}
        assert texts(out) == ["re: one", "re: fail two", None, "re: fail three"]
        assert (summary.answered, summary.failed, summary.answered_before) == (2, 1, 1)

    async def test_a_lock_file_that_was_left_does_not_matter(
        self, tmp_path: Path, out: Path
    ) -> None:
        (tmp_path / f".{out.name}.gprochat-lock").touch()
        (tmp_path / f".{out.name}.gprochat-new").write_text("half")
        async with batch_site() as site:
            await run(site, ["one"], out)
        assert names(tmp_path) == [out.name]

    async def test_the_prompt_of_an_incomplete_line_is_asked_again(self, out: Path) -> None:
        items = [f"{n}" for n in range(9)]
        async with batch_site() as site:
            await run(site, items, out)
            left = tear(out)
            summary = await run(site, items, out)
        assert texts(out) == [f"re: {n}" for n in items]
        assert summary.answered_before == left


class TestFailures:
    async def test_are_recorded_with_their_partial_text(self, out: Path) -> None:
        def cut(request: Request) -> Script:
            return [Say("half"), Hang()] if request.prompt == "cut" else some_fail(request)

        async with batch_site(cut) as site:
            limits = Timeouts(idle=0.05)
            summary = await run(site, ["cut", "fail"], out, timeouts=limits)
        first, second = written(out)
        assert first["error"]["type"] == "RequestTimeoutError"
        assert first["error"]["partial_text"] == "half"
        assert second["error"]["type"] == "SiteError"
        assert summary.failures == {"RequestTimeoutError": 1, "SiteError": 1}
        assert summary.latency is None

    async def test_of_a_callback_are_raised_without_a_group(self, out: Path) -> None:
        failure = GPROChatError()

        def fail(*_: object) -> None:
            raise failure

        async with batch_site() as site:
            with pytest.raises(GPROChatError) as caught:
                await run(site, io.BytesIO(b"\xff\n"), out, on_bad_line=fail)
            assert caught.value is failure
            with pytest.raises(GPROChatError) as caught:
                await run(site, ["one"], out, on_progress=fail)
            assert caught.value is failure

    async def test_base_exceptions_are_raised_without_a_group(self, out: Path) -> None:
        class Ended(BaseException):
            pass

        def end(summary: BatchSummary) -> None:
            if summary.in_flight:
                raise Ended

        held = Held("one")
        async with batch_site(held) as site:
            with pytest.raises(Ended):
                await run(site, ["one"], out, on_progress=end)
            held.go_on.set()
            await run(site, ["one"], out)
        assert texts(out) == ["re: one"]

    async def test_of_the_disk_are_raised_without_a_group(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "disk full")

        held = Held("two")
        async with batch_site(held) as site:
            with monkeypatch.context() as patch:
                patch.setattr(Journal, "_take", full)
                with pytest.raises(OSError, match="disk full"):
                    await run(site, ["one", "two"], out)
            held.go_on.set()
            await run(site, ["one", "two"], out)
        assert texts(out) == ["re: one", "re: two"]

    async def test_of_counting_do_not_end_the_batch(
        self, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried = anyio.Event()

        async def fail(_: object) -> int:
            tried.set()
            raise OSError(5, "no")

        def respond(request: Request) -> Script:
            return tried.wait, Say(request.prompt)

        monkeypatch.setattr("gprochat_anyio.batch._lines.LineReader.count", fail)
        async with batch_site(respond) as site:
            source = jsonl(tmp_path / "in.jsonl", {"prompt": "one"})
            assert (await run(site, source, out, on_progress=lambda _: None)).total == 1


class TestProgress:
    async def test_is_reported_during_the_run_and_at_its_end(
        self, tmp_path: Path, out: Path
    ) -> None:
        source = jsonl(tmp_path / "in.jsonl", {"prompt": "one"}, {"prompt": "two"}, {})
        held = Held("two")
        seen: list[BatchSummary] = []

        def watch(summary: BatchSummary) -> None:
            seen.append(summary)
            if summary.answered and summary.total is not None:
                held.go_on.set()

        async with batch_site(held) as site:
            summary = await run(site, source, out, on_progress=watch, max_at_once=1)
        middle = next(s for s in seen if s.answered)
        assert (middle.total, middle.answered, middle.in_flight) == (3, 1, 1)
        assert not middle.complete
        assert seen[-1].done == summary.done == 3
        assert seen[-1].in_flight == 0
        assert summary.complete
        assert summary.latency is not None
        assert summary.first_chunk is not None
        assert summary.first_chunk.p50 <= summary.latency.most <= summary.elapsed

    async def test_never_shows_a_prompt(self, out: Path) -> None:
        async with batch_site(some_fail) as site:
            summary = await run(site, ["secret fail", "secret"], out)
        assert "secret" not in repr(summary)


class TestStop:
    async def test_starts_no_more_prompts_and_waits_for_running_ones(self, out: Path) -> None:
        held = Held("0", "1")
        stop = anyio.Event()
        results: list[BatchSummary] = []

        async def go() -> None:
            source = (f"{n}" for n in range(9))
            results.append(await run(site, source, out, stop=stop, max_at_once=2))

        async with batch_site(held) as site, anyio.create_task_group() as tg:
            tg.start_soon(go)
            await held.holding.wait()
            stop.set()
            await all_tasks_blocked()
            held.go_on.set()
        assert not results[0].complete
        assert {"0", "1"} <= set(site.asked) <= {"0", "1", "2"}, "one was read already"
        assert texts(out) == [f"re: {n}" for n in sorted(site.asked)]

    async def test_cancels_prompts_after_the_grace_period(self, out: Path) -> None:
        held = Held("two")
        stop = anyio.Event()
        results: list[BatchSummary] = []

        async def go() -> None:
            results.append(await run(site, ["one", "two"], out, stop=stop, grace=0.01))

        async with batch_site(held) as site:
            async with anyio.create_task_group() as tg:
                tg.start_soon(go)
                await held.holding.wait()
                stop.set()
            assert (results[0].answered, results[0].in_flight) == (1, 1)
            assert not results[0].complete
            assert texts(out) == ["re: one"]
            held.go_on.set()
            assert (await run(site, ["one", "two"], out)).all_answered
        assert texts(out) == ["re: one", "re: two"]

    async def test_while_waiting_for_the_source(self, out: Path) -> None:
        stop = anyio.Event()

        async def items() -> AsyncIterator[str]:
            yield "one"
            stop.set()
            await anyio.sleep_forever()

        async with batch_site() as site:
            summary = await run(site, items(), out, stop=stop, grace=math.inf)
        assert texts(out) == ["re: one"]
        assert not summary.complete

    async def test_after_the_last_prompt_changes_nothing(self, out: Path) -> None:
        held = Held("one")
        stop = anyio.Event()
        results: list[BatchSummary] = []

        async def go() -> None:
            results.append(await run(site, ["one"], out, stop=stop))

        async with batch_site(held) as site, anyio.create_task_group() as tg:
            tg.start_soon(go)
            await held.holding.wait()
            await all_tasks_blocked()
            stop.set()
            await all_tasks_blocked()
            held.go_on.set()
        assert results[0].all_answered


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
