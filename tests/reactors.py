"""Both ways in which a reactor waits for sockets, and a view of the event loop's reactor."""

from __future__ import annotations

import selectors

import pytest

from gprochat_anyio.transport import _reactor
from gprochat_anyio.transport._reactor import Reactor


def force_reader_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have reactors find a selector without a descriptor, as on Windows."""
    monkeypatch.setattr(_reactor, "DefaultSelector", selectors.SelectSelector)


@pytest.fixture(params=["selector", "tasks"])
def reader_tasks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test twice: with a selector, and with reader tasks as on Windows.

    `pytestmark = pytest.mark.usefixtures("reader_tasks")` does so with a whole module.
    """
    if request.param == "tasks":
        force_reader_tasks(monkeypatch)
    return bool(request.param == "tasks")


def running_reactor() -> Reactor | None:
    """Return the event loop's reactor; None if there is no connection that needs one."""
    found = _reactor._current.get(None)
    reactor = None if found is None else found()
    return None if reactor is None or reactor.closed else reactor
