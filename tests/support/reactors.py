"""Both ways in which a reactor waits for sockets, and access to the event loop's reactor."""

from __future__ import annotations

import selectors

import pytest

from gprochat_anyio.transport import _reactor
from gprochat_anyio.transport._reactor import Reactor


def force_reader_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make reactors use a selector without a descriptor, as on Windows."""
    monkeypatch.setattr(_reactor, "DefaultSelector", selectors.SelectSelector)


@pytest.fixture(params=["selector", "tasks"])
def reader_tasks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test twice: with a selector, and with reader tasks as on Windows.

    `pytestmark = pytest.mark.usefixtures("reader_tasks")` applies it to a whole module.
    """
    if request.param == "tasks":
        force_reader_tasks(monkeypatch)
    return bool(request.param == "tasks")


def running_reactor() -> Reactor | None:
    """Return the event loop's reactor, or None if no connection needs one."""
    found = _reactor._current.get(None)
    reactor = None if found is None else found()
    return None if reactor is None or reactor.closed else reactor
