"""The journal of a batch, and its lock."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from support.batch_outputs import opened, ours, posix
from support.blocked import all_tasks_blocked

from gprochat_anyio.batch._journal import Journal
from gprochat_anyio.batch._lock import FileLock


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
