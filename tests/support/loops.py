"""The event loops that tests run on, and their counterparts in virtual time."""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
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


def eager_loop() -> asyncio.AbstractEventLoop:
    """Return a loop whose tasks start within the call that creates them. Requires Python 3.12."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - not in 3.11
    return loop


# Optional, because it doubles asyncio's share of the suite: `nox -s eager`.
_EAGER: list[Any] = []
if os.environ.get("GPROCHAT_EAGER") and sys.version_info >= (3, 12):
    _EAGER.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="asyncio+eager"))

LOOPS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    *_UVLOOP,
    *_EAGER,
    pytest.param(("trio", {}), id="trio"),
]

VIRTUAL_LOOPS = [
    pytest.param("asyncio-virtual", id="asyncio-virtual"),
    pytest.param("trio-virtual", id="trio-virtual"),
]
virtual = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)


def virtual_backend(param: Any) -> Any:
    """Return a loop's name and options, with its own clock in virtual time."""
    if param == "asyncio-virtual":
        return "asyncio", {"loop_factory": VirtualTimeLoop}
    if param == "trio-virtual":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return param


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances the clock to the next timer instead of waiting."""

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

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncio's own
    ) -> None:
        """Wait without a limit, which would expire immediately: threads take real time."""
        await super().shutdown_default_executor()
