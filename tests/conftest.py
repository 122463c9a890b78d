"""Every async test runs on asyncio, on asyncio with uvloop, and on Trio."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest
from trio.testing import MockClock

try:
    import uvloop
except ImportError:  # Windows, PyPy
    _UVLOOP: list[Any] = []
else:
    _UVLOOP = [
        pytest.param(("asyncio", {"loop_factory": uvloop.new_event_loop}), id="asyncio+uvloop")
    ]

LOOPS = [pytest.param(("asyncio", {}), id="asyncio"), *_UVLOOP, pytest.param(("trio", {}), id="trio")]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting, moves the clock on to the next timer when no descriptor is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout is None:
            return ready or super().select(timeout)
        self.now += max(timeout, 0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """asyncio's counterpart of Trio's MockClock with `autojump_threshold=0`."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@pytest.fixture
def virtual_time(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Marks a test that runs on `VIRTUAL_LOOPS`; parametrise `anyio_backend` with those."""


VIRTUAL_LOOPS = [
    pytest.param(("asyncio", {"loop_factory": VirtualTimeLoop}), id="asyncio-virtual"),
    pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="trio-virtual"),
]
