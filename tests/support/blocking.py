"""Detect calls that block the event loop, by audit events rather than by a clock."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_EVENTS = frozenset(
    {
        "open",
        "os.listdir",
        "os.scandir",
        "os.system",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.getnameinfo",
        "sqlite3.connect",
        "subprocess.Popen",
    }
)
_LIBRARY = f"{os.sep}gprochat_anyio{os.sep}"
_IMPORTING = "<frozen importlib"

_watched: list[tuple[int, list[str]]] = []
_hooked = False


@contextmanager
def no_blocking() -> Iterator[list[str]]:
    """Fail at the end of the block if this thread has called a blocking function in it.

    Opening files, looking up names, connecting a blocking socket, sleeping and starting processes
    count. Imports on first use do not.

    :raises AssertionError: If the thread has blocked. The message names the places.
    """
    global _hooked  # noqa: PLW0603 - an audit hook cannot be removed
    if not _hooked:
        _hooked = True
        sys.addaudithook(_audit)
    found: list[str] = []
    _watched.append((threading.get_ident(), found))
    sleep = time.sleep

    def noted_sleep(seconds: Any) -> None:
        _note("time.sleep", (seconds,))
        sleep(seconds)

    time.sleep = noted_sleep  # it has an audit event from 3.13 on
    try:
        yield found
    finally:
        time.sleep = sleep
        _watched.pop()
    assert not found, "the event loop was blocked:\n" + "\n".join(found)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        if args[0].getblocking():
            _note(event, args)
    elif event == "socket.getaddrinfo":
        # Trio first checks for an IP address, which needs no lookup.
        if not sys._getframe(1).f_locals.get("flags", 0) & socket.AI_NUMERICHOST:
            _note(event, args)
    elif event in _EVENTS:
        _note(event, args)


def _note(event: str, args: tuple[Any, ...]) -> None:
    if _watched and _watched[-1][0] == threading.get_ident() and (place := _place()):
        _watched[-1][1].append(f"{event}{args!r} by {place}"[:300])


def _place() -> str:
    """Return the place of the call; an empty string for an import."""
    frame: FrameType | None = sys._getframe(3)
    names: list[str] = []
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_IMPORTING):
            return ""
        names.append(f"{name}:{frame.f_lineno}")
        if _LIBRARY in name and f"{os.sep}tests{os.sep}" not in name:
            break
        frame = frame.f_back
    return names[-1] if _LIBRARY in names[-1] else names[0]
