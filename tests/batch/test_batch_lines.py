"""Reading of an input's lines: from files, pipes and objects, and of any length."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batch_outputs import posix

from gprochat_anyio.batch import _lines as lines_module
from gprochat_anyio.batch._lines import LineReader, LineSplitter, LongLine, is_blank


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
