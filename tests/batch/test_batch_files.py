"""Reading of inputs, and recovery of outputs, from any bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import string
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from hypothesis import example, given
from hypothesis import strategies as st
from support.blocked import all_tasks_blocked

from gprochat_anyio import Message
from gprochat_anyio._request.reply import Reply, Timing
from gprochat_anyio.batch import OutputBusyError, OutputError
from gprochat_anyio.batch import _lines as lines_module
from gprochat_anyio.batch._journal import Journal
from gprochat_anyio.batch._keys import KeyCounts, key_of_bad_item, key_of_messages
from gprochat_anyio.batch._line_json import decode_fields, encode_fields
from gprochat_anyio.batch._lines import LineReader, LineSplitter, LongLine, is_blank
from gprochat_anyio.batch._lock import FileLock
from gprochat_anyio.batch._records import (
    Record,
    line_of_error,
    line_of_reply,
    record_of_item,
    record_of_line,
)
from gprochat_anyio.batch._recovery import state_of
from gprochat_anyio.batch._summary import Histogram

SITE = "http://site.test"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


def record(line: bytes, **options: Any) -> Record:
    given = {"format": "jsonl", "site": SITE, "index": 0, "number": 7, **options}
    return record_of_line(line, **given)


def ours(number: int = 0, *, failed: bool = False, again: bool = False) -> bytes:
    """Return a line as a batch writes it.

    :param again: Whether the line replaces a failure's.
    """
    made = record_of_item(f"prompt {number}", site=SITE, index=number)
    made.replaces = made.key if again else None
    if failed:
        return line_of_error(made, OSError("broken"))
    return line_of_reply(made, Reply("text", Timing(0, 0, 0, 1, 4, 1)))


def opened(path: Path) -> Journal:
    journal = Journal(path, sync_every=1)
    journal.open()
    return journal


class TestSplitter:
    @pytest.mark.slow
    @given(st.lists(st.binary(max_size=9)), st.data())
    def test_lines_do_not_depend_on_block_boundaries(
        self, pieces: list[bytes], data: st.DataObject
    ) -> None:
        whole = b"\n".join(pieces)
        splitter, got = LineSplitter(1000), list[bytes | LongLine]()
        at = 0
        while at < len(whole):
            size = data.draw(st.integers(1, len(whole)))
            got += splitter.feed(whole[at : at + size])
            at += size
        got += splitter.finish()
        wanted = whole.split(b"\n")
        assert got == (wanted if wanted[-1] else wanted[:-1])

    @given(st.lists(st.integers(0, 12), max_size=8), st.integers(1, 40))
    def test_bytes_of_long_lines_are_not_kept(self, sizes: list[int], block: int) -> None:
        whole = b"".join(b"x" * size + b"\n" for size in sizes)
        splitter, got = LineSplitter(6), list[bytes | LongLine]()
        for at in range(0, len(whole), block):
            got += splitter.feed(whole[at : at + block])
            assert sum(map(len, splitter._pieces)) <= 6
        assert [None if isinstance(x, LongLine) else len(x) for x in got] == [
            None if size > 6 else size for size in sizes
        ]

    def test_long_lines_have_different_digests(self) -> None:
        splitter = LineSplitter(3)
        one, same, other = splitter.feed(b"aaaa\naa") + splitter.feed(b"aa\naaab\n")
        assert isinstance(one, LongLine)
        assert isinstance(same, LongLine)
        assert isinstance(other, LongLine)
        assert one.digest == same.digest != other.digest

    def test_a_long_last_line_may_lack_its_end(self) -> None:
        splitter = LineSplitter(3)
        assert splitter.feed(b"aaaa") == []
        assert isinstance(splitter.finish()[0], LongLine)

    @pytest.mark.parametrize("line", [b"", b" \t", b"\r", b"\xef\xbb\xbf", b"\xef\xbb\xbf \r"])
    def test_blank(self, line: bytes) -> None:
        assert is_blank(line)
        assert not is_blank(line + b"x")


async def all_lines(reader: LineReader) -> list[bytes | LongLine]:
    reader.open()
    got = []
    try:
        while lines := await reader.next_lines():
            got += lines
        assert await reader.next_lines() == []
    finally:
        reader.close()
    return got


class TestReader:
    async def test_of_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lines_module, "_BLOCK", 5)
        path = tmp_path / "in"
        path.write_bytes(b"one\n\ntwo and more\nend")
        reader = LineReader(path)
        assert await all_lines(reader) == [b"one", b"", b"two and more", b"end"]
        assert await LineReader(path).count() == 3

    async def test_of_an_open_file_and_one_in_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "in"
        path.write_bytes(b"one\ntwo")
        with path.open("rb") as file:
            reader = LineReader(file)
            assert await reader.count() is None
            assert await all_lines(reader) == [b"one", b"two"]
            assert not file.closed
        memory = LineReader(io.BytesIO(b"one\ntwo\n"))
        assert await all_lines(memory) == [b"one", b"two"]
        assert not memory.is_file(str(path))

    @posix
    async def test_a_line_of_a_pipe_is_returned_as_it_arrives(self) -> None:
        read, write = os.pipe()
        with os.fdopen(read, "rb", buffering=0) as end:
            reader = LineReader(end)
            reader.open()
            os.write(write, b"one\ntw")
            assert await reader.next_lines() == [b"one"]
            with anyio.move_on_after(0.01) as scope:
                await reader.next_lines()
            assert scope.cancelled_caught, "waiting for a pipe can be cancelled"
            os.write(write, b"o\n")
            assert await reader.next_lines() == [b"two"]
            os.close(write)
            assert await reader.next_lines() == []

    @posix
    @pytest.mark.parametrize("buffering", [0, 65536])
    async def test_bytes_that_a_file_has_buffered_from_its_pipe(self, buffering: int) -> None:
        """Return buffered bytes without waiting for the pipe."""
        read, write = os.pipe()
        with anyio.fail_after(10), os.fdopen(read, "rb", buffering=buffering) as end:
            os.write(write, b"header\none\n")
            assert end.readline() == b"header\n"
            assert os.get_blocking(read)
            reader = LineReader(end)
            reader.open()
            assert os.get_blocking(read)
            assert await reader.next_lines() == [b"one"]
            os.write(write, b"two")
            os.close(write)
            assert await reader.next_lines() == [b"two"]
            assert await reader.next_lines() == []

    @posix
    async def test_of_a_gzip_stream_of_a_pipe(self) -> None:
        read, write = os.pipe()
        os.write(write, gzip.compress(b"one\ntwo"))
        os.close(write)
        with os.fdopen(read, "rb") as end, gzip.GzipFile(fileobj=end) as file:
            assert await all_lines(LineReader(file)) == [b"one", b"two"]  # type: ignore[arg-type]

    async def test_of_an_object_with_only_a_read_method(self) -> None:
        class Reading:
            read = io.BytesIO(b"one\ntwo").read

        source: Any = Reading()
        assert await all_lines(LineReader(source)) == [b"one", b"two"]

    def test_is_file_recognizes_its_own_path(self, tmp_path: Path) -> None:
        path = tmp_path / "in"
        path.write_bytes(b"")
        reader = LineReader(path)
        reader.open()
        assert reader.is_file(str(path))
        assert not reader.is_file(str(tmp_path / "other"))
        reader.close()

    def test_open_after_close_does_nothing(self, tmp_path: Path) -> None:
        reader = LineReader(tmp_path / "none")
        reader.close()
        reader.open()

    def test_of_a_missing_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            LineReader(tmp_path / "none").open()
        with pytest.raises(IsADirectoryError if os.name == "posix" else PermissionError):
            LineReader(tmp_path).open()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
names = st.sampled_from(["id", "index", "text", "error", "key", "input_text", "tag", "a\x85\ud800"])


class TestRecords:
    @given(st.binary(max_size=40) | st.text().map(str.encode), st.sampled_from(["jsonl", "text"]))
    @example(b"[" * 100_000, "jsonl")
    @example(b'{"prompt": 1e999, "n": NaN}', "jsonl")
    @example(b'{"prompt": "a", "n": ' + b"1" * 5000 + b"}", "jsonl")
    @example(b'{"prompt": "\\ud800"}', "jsonl")
    @example(b'{"prompt": "x", "deep": 1e400}', "jsonl")
    def test_any_line_is_a_prompt_or_invalid(self, line: bytes, format: str) -> None:
        made = record(line, format=format)
        assert (made.prompt is None) != (made.error is None)
        assert (made.key, made.head) == (record(line, format=format).key, made.head)
        assert len(made.key) == 64
        if made.error is not None:
            assert str(made.error).startswith("line 7: ")
            state, key = state_of(line_of_error(made, made.error))
            assert (state, key) == ("failed", made.key)

    @given(st.dictionaries(names, values, max_size=5))
    def test_fields_are_copied_to_the_output(self, fields: dict[str, Any]) -> None:
        made = record_of_item({"prompt": "Hi", **fields}, site=SITE, index=3)
        line = line_of_reply(made, Reply("tëxt\u2028\x9b", Timing(0, 0, 0, 1, 4, 1)))
        assert len(line.decode().splitlines()) == 1
        written = json.loads(line)
        assert written["id"] == fields.get("id")
        assert (written["index"], written["text"]) == (3, "tëxt\u2028\x9b")
        for name, value in fields.items():
            assert value in [v for k, v in written.items() if k.endswith(name)]
        assert len(written) == len(fields.keys() - {"id"}) + 8
        assert "prompt" not in written

    def test_the_key_is_as_documented(self) -> None:
        made = record(b'{"messages": [{"role": "user", "content": "H\\u00e9"}]}')
        assert made.key == key_of_messages(SITE, [Message("user", "Hé")])
        as_written = b'["http://site.test",[["user","H\\u00e9"]]]'
        assert made.key == hashlib.sha256(as_written).hexdigest()
        assert made.key == record("Hé".encode(), format="text").key
        assert made.key != record("Hé".encode(), format="text", site="another").key

    @given(st.lists(st.text().filter(str.strip), min_size=1, max_size=3), st.text())
    @example(['\x7f \x1b \u2028 \xe9 \t " \\ /'], "s")
    def test_the_key_is_as_documented_for_any_text(self, texts: list[str], site: str) -> None:
        turns = [["user" if n % 2 else "model", text] for n, text in enumerate(texts)]
        written = json.dumps([site, turns], separators=(",", ":"))
        key = key_of_messages(site, [Message(role, text) for role, text in turns])
        assert key == hashlib.sha256(written.encode()).hexdigest()

    @given(st.dictionaries(st.text(), values | st.floats(allow_nan=False, allow_infinity=False)))
    @example({"a": 2**70, "b": "\ud800", "c": 1e16})
    def test_lines_are_read_and_written_as_json_does(self, fields: dict[str, Any]) -> None:
        line = json.dumps(fields).encode()
        assert decode_fields(line) == fields
        for known in (True, False):
            assert json.loads(encode_fields(fields, known=known)) == fields

    def test_a_byte_order_mark_and_carriage_returns_are_skipped(self) -> None:
        line = b'\xef\xbb\xbf{"prompt": "Hi"}\r'
        assert record(line, number=1).prompt == "Hi"
        assert record(line, number=2).error is not None
        assert record(b" Hi \r", format="text").prompt == " Hi "

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (b"[1]", "not a JSON object"),
            (b'["\\ud800"]', "not a JSON object"),
            (b'{"prompt": "secret', "invalid JSON: Unterminated string starting at, at column 12"),
            (b'{"prompt": "secret", "messages": []}', '"prompt" or "messages", not both'),
            (b'{"id": "secret"}', 'give "prompt" or "messages"'),
            (b'{"custom_id": "secret", "body": {}}', 'give the format "openai"'),
            (b'{"messages": "secret"}', '"messages" must be a list'),
            (b'{"prompt": ""}', "blank"),
            (b"caf\xe9", "not UTF-8: invalid byte at offset 3"),
        ],
    )
    def test_errors_of_invalid_lines_do_not_show_the_prompt(self, line: bytes, said: str) -> None:
        made = record(line)
        assert said in str(made.error)
        assert "secret" not in str(made.error)

    def test_an_invalid_line_keeps_its_id(self) -> None:
        made = record(b'{"id": 5, "tag": "x"}')
        assert json.loads(line_of_error(made, OSError("why")))["id"] == 5

    def test_a_long_line_is_invalid(self) -> None:
        long = LongLine()
        made = record_of_line(long, format="text", site=SITE, index=0, number=2)
        assert "line 2: longer than 16 MiB" in str(made.error)

    @pytest.mark.parametrize("value", [{1, 2}, float("nan"), {"deep": object()}])
    @pytest.mark.parametrize("prompt", ["Hi", ""])
    def test_fields_that_are_not_json_values_are_invalid(self, value: object, prompt: str) -> None:
        made = record_of_item({"prompt": prompt, "field": value}, site=SITE, index=0)
        assert made.error is not None
        assert state_of(line_of_error(made, made.error))[0] == "failed"

    def test_the_key_of_an_invalid_item_is_stable(self) -> None:
        assert key_of_bad_item(SITE, {"a": object()}) == key_of_bad_item(SITE, {"a": object()})
        circle: list[Any] = []
        circle.append(circle)
        assert record_of_item(circle, site=SITE, index=0).error is not None
        assert key_of_bad_item(SITE, circle) == key_of_bad_item(SITE, circle)

    def test_a_failure_keeps_its_partial_text(self) -> None:
        from gprochat_anyio import ReplyInterruptedError  # noqa: PLC0415

        made = record_of_item("Hi", site=SITE, index=0)
        line = json.loads(line_of_error(made, ReplyInterruptedError("m", partial_text="half")))
        assert line["error"] == {
            "type": "ReplyInterruptedError", "message": "m", "partial_text": "half",
        }  # fmt: skip
        assert line["timing"] is None


class TestKeyCounts:
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(["00", "01", "ab", "ba"]))))
    def test_counts_like_a_list_of_keys(self, steps: list[tuple[bool, str]]) -> None:
        counts, model = KeyCounts(), list[str]()
        for add, digits in steps:
            key = digits * 32
            if add:
                counts.add(key)
                model.append(key)
            else:
                assert counts.take(key) == (key in model)
                if key in model:
                    model.remove(key)
            assert len(counts) == len(model)

    def test_a_match_across_two_keys_does_not_count(self) -> None:
        counts = KeyCounts()
        first, second, rest = "00000" + "1" * 27, "00000" + "2" * 27, "f" * 32
        counts.add(first + rest)
        counts.add(second + rest)
        crossing = (first + second)[2:34]
        assert not counts.take(crossing + rest)
        counts.add(crossing + rest)
        assert counts.take(crossing + rest)
        assert counts.take(second + rest)
        assert counts.take(first + rest)
        assert not counts


class TestOutput:
    @given(st.binary(max_size=30) | st.integers(0, len(ours()) - 1).map(ours().__getitem__))
    def test_an_incomplete_last_line_is_removed(
        self, tmp_path_factory: pytest.TempPathFactory, tail: bytes | int
    ) -> None:
        torn = tail if isinstance(tail, bytes) else ours()[:tail]
        torn = torn.replace(b"\n", b"")
        path = tmp_path_factory.mktemp("out") / "out"
        path.write_bytes(ours(1) + torn)
        journal = opened(path)
        journal.put(ours(2))
        journal.close()
        assert path.read_bytes() == ours(1) + ours(2)

    @given(st.integers(0, len(ours()) - 2))
    def test_an_incomplete_first_line_is_removed(
        self, tmp_path_factory: pytest.TempPathFactory, size: int
    ) -> None:
        path = tmp_path_factory.mktemp("out") / "out"
        path.write_bytes(ours()[:size])
        opened(path).close()
        assert path.read_bytes() == b""

    def test_blank_lines_are_kept_and_not_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "out"
        path.write_bytes(ours(1) + b"\n \n" + ours(2))
        journal = opened(path)
        assert len(journal.answered) == 2
        journal.put(ours(3))
        journal.close()
        assert path.read_bytes() == ours(1) + b"\n \n" + ours(2) + ours(3)

    def test_a_missing_newline_is_added(self, tmp_path: Path) -> None:
        path = tmp_path / "out"
        path.write_bytes(ours(1) + ours(2)[:-1])
        journal = opened(path)
        assert len(journal.answered) == 2
        journal.put(ours(3))
        journal.close()
        assert path.read_bytes() == ours(1) + ours(2) + ours(3)

    lines = st.sampled_from(
        [ours(1), ours(2, failed=True), b"\n", b"\0\0\n", b'{"index": 1}\n', b"text\n", b"[]\n"]
    )

    @given(st.lists(lines, max_size=5), st.binary(max_size=9))
    def test_any_mix_of_lines_is_continued_or_left_unchanged(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        mix: list[bytes],
        tail: bytes,
    ) -> None:
        path = tmp_path_factory.mktemp("out") / "out"
        before = b"".join(mix) + tail.replace(b"\n", b"")
        path.write_bytes(before)
        try:
            opened(path).close()
        except OutputError:
            assert path.read_bytes() == before
            assert not all(line in {ours(1), ours(2, failed=True), b"\n"} for line in mix) or (
                not any(line.strip() for line in mix)
            )
        else:
            kept = [line for line in mix if line != b"\0\0\n"]
            assert path.read_bytes() == b"".join(kept)
        assert [p.name for p in path.parent.iterdir()] == ["out"]

    @pytest.mark.parametrize(
        "content",
        [
            b'{"id": 1, "prompt": "Hi"}',
            b'{"id": 1, "prompt": "Hi"}\n',
            b"notes",
            b"\0\0\0",
            b"\0\0\0\n" + ours(),
            ours() + b"{}\n",
            ours() + b'{"id":1,"index":0,"key":"' + b"0" * 64 + b'"}\n',
            ours() + ours().replace(b'"key":"', b'"key":"x'),
            ours() + ours().replace(b'"index":0', b'"index":"0"'),
            ours() + ours().replace(b'"text":"text"', b'"text":1'),
        ],
    )
    def test_another_file_is_left_unchanged(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "out"
        path.write_bytes(content)
        with pytest.raises(OutputError, match="left unchanged: its line"):
            opened(path)
        assert path.read_bytes() == content
        path.unlink()
        opened(path).close()  # the failure has released the lock

    def test_a_folder_and_a_missing_folder_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="is not a regular file"):
            opened(tmp_path)
        with pytest.raises(FileNotFoundError, match="none/out"):
            opened(tmp_path / "none" / "out")

    @posix
    def test_permissions_and_links_are_kept(self, tmp_path: Path) -> None:
        path, link = tmp_path / "out", tmp_path / "link"
        path.write_bytes(ours(1, failed=True) + ours(1, again=True))
        path.chmod(0o640)
        link.symlink_to(path)
        journal = opened(link)
        with pytest.raises(OutputBusyError):
            opened(path)
        journal.close()
        assert link.is_symlink()
        assert path.read_bytes() == ours(1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_a_failed_replacement_leaves_the_file_unchanged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(28, "disk full")

        path = tmp_path / "out"
        before = ours(1, failed=True) + ours(1, again=True) + ours(2, failed=True)
        path.write_bytes(before)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(OSError, match="disk full"):
                opened(path)
        assert path.read_bytes() == before
        journal = opened(path)
        assert (len(journal.answered), len(journal.failed)) == (1, 1)
        journal.close()
        assert [p.name for p in tmp_path.iterdir()] == ["out"], "the failure left no other file"

    def test_a_partly_written_line_is_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write

        def half(descriptor: int, data: Any) -> int:
            if len(data) < 10:
                raise OSError(28, "disk full")
            return write(descriptor, data[: len(data) // 2])

        path = tmp_path / "out"
        journal = opened(path)
        journal.put(ours(1))
        journal._write(False)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            journal.put(ours(2))
            with pytest.raises(OSError, match=r"disk full: .*out"):
                journal._write(True)
        journal.put(ours(3))
        journal.close()
        assert path.read_bytes() == ours(1)

    @pytest.mark.parametrize("failed", [False, True])
    @pytest.mark.parametrize("killed", [False, True])
    def test_a_line_replaces_a_failure_at_the_end_or_after_a_kill(
        self, tmp_path: Path, failed: bool, killed: bool
    ) -> None:
        path = tmp_path / "out"
        path.write_bytes(ours(1, failed=True) * 2 + ours(2, failed=True))
        again = ours(1, failed=failed, again=True)
        if killed:
            path.write_bytes(path.read_bytes() + again)
            opened(path).close()
        else:
            journal = opened(path)
            assert len(journal.failed) == 3
            journal.put(again, replaces=record_of_item("prompt 1", site=SITE, index=1).key)
            journal.close()
        whole = ours(1, failed=True) + ours(2, failed=True) + ours(1, failed=failed)
        assert path.read_bytes() == whole
        journal = opened(path)
        assert (len(journal.answered), len(journal.failed)) == (1 - failed, 2 + failed)
        journal.close()
        assert path.read_bytes() == whole

    def test_open_after_close_does_nothing(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "out", sync_every=1)
        journal.close()
        journal.open()
        assert list(tmp_path.iterdir()) == []


class TestJournal:
    async def test_writes_each_tick_and_syncs_less_often(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[bytes] = []
        written = threading.Semaphore(0)
        path = tmp_path / "out"
        journal = Journal(path, sync_every=0.3)
        journal.open()
        fsync, write = os.fsync, Journal._write

        def note_sync(descriptor: int) -> None:
            synced.append(path.read_bytes())
            fsync(descriptor)

        def note_write(self: Journal, sync: bool) -> None:
            write(self, sync)
            written.release()

        monkeypatch.setattr(os, "fsync", note_sync)
        monkeypatch.setattr(Journal, "_write", note_write)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tg:
                tg.start_soon(journal.keep_written)
                whole = b""
                for number in range(3):
                    journal.put(ours(number))
                    whole += ours(number)
                    await to_thread.run_sync(written.acquire)
                    assert path.read_bytes() == whole
                assert synced == [ours(0)], "the others belong to the next group"
                while len(synced) < 2:
                    await to_thread.run_sync(written.acquire)
                assert synced[1] == whole
                tg.cancel_scope.cancel()
        await journal.aclose()
        assert len(synced) == 2, "nothing was left to sync"

    async def test_is_full_until_it_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gprochat_anyio.batch._journal._MOST_UNWRITTEN", 10)
        monkeypatch.setattr("gprochat_anyio.batch._journal._AT_ONCE", 10)
        journal = Journal(tmp_path / "out", sync_every=0)
        journal.open()
        await journal.room()
        journal.put(ours(1))
        journal.put(ours(2))
        assert journal.full
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tg:
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(journal.room)
                    waiting.start_soon(journal.room)
                    await all_tasks_blocked()
                    tg.start_soon(journal.keep_written)
                tg.cancel_scope.cancel()
        await journal.aclose()
        assert (tmp_path / "out").read_bytes() == ours(1) + ours(2)


class TestLock:
    def test_has_one_holder(self, tmp_path: Path) -> None:
        one, other = FileLock(str(tmp_path / "lock")), FileLock(str(tmp_path / "lock"))
        assert one.acquire()
        assert not other.acquire()
        other.release()
        one.release()
        assert other.acquire()
        other.release()
        other.release()
        assert list(tmp_path.iterdir()) == []

    @posix
    @pytest.mark.parametrize("replaced", [True, False])
    def test_a_file_that_was_just_removed_is_not_locked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
    ) -> None:
        path = tmp_path / "lock"
        opening, count = os.open, 0

        def open_and_lose(*arguments: Any) -> int:
            nonlocal count
            descriptor = opening(*arguments)
            count += 1
            if count == 1:
                path.unlink()
                if replaced:
                    path.write_bytes(b"")
            return descriptor

        monkeypatch.setattr(os, "open", open_and_lose)
        lock = FileLock(str(path))
        assert lock.acquire()
        assert count == 2
        assert not FileLock(str(path)).acquire()
        lock.release()

    def test_of_a_file_system_without_locks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: int) -> None:
            raise OSError(37, "no locks")

        monkeypatch.setattr("gprochat_anyio.batch._lock._lock", fail)
        with pytest.raises(OSError, match="no locks"):
            FileLock(str(tmp_path / "lock")).acquire()
        with pytest.raises(OSError, match=r"no locks.*out"):
            opened(tmp_path / "out")


class TestHistogram:
    @given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50))
    def test_is_within_two_percent(self, seconds: list[float]) -> None:
        histogram = Histogram()
        for value in seconds:
            histogram.add(value)
        found = histogram.percentiles()
        assert found is not None
        assert found.most == max(seconds)
        for share, got in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99)):
            exact = sorted(seconds)[-(-len(seconds) * int(share * 100) // 100) - 1]
            assert abs(got - exact) <= 0.0201 * exact

    def test_of_nothing(self) -> None:
        assert Histogram().percentiles() is None


def test_names_are_plain() -> None:
    assert set(ours().decode()) <= set(string.printable)
