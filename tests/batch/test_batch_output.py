"""Recovery of an output from any bytes, and lines that replace failures."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batch_outputs import SITE, opened, ours, posix

from gprochat_anyio.batch import OutputBusyError, OutputError
from gprochat_anyio.batch._journal import Journal
from gprochat_anyio.batch._records import record_of_item


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
