"""Fixtures for the tests of the transport: a network without sockets."""

from __future__ import annotations

import pytest

from gprochat_anyio.transport import _pool

from .fake_network import Clock, Network


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(_pool, "connect", made.connect)
    monkeypatch.setattr(_pool, "SocketConnection", made.connection)
    monkeypatch.setattr(_pool, "current_reactor", Clock)
    return made
