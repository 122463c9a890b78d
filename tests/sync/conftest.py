"""Fixtures for the tests of `SyncClient`: a site and its client."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.sync_clients import BACKENDS, loop_threads
from support.sync_site import Serving, Site

from gprochat_anyio import Retry, SyncClient


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    yield
    assert loop_threads() == []


@pytest.fixture
def serving() -> Serving:
    return Serving()


@pytest.fixture
def site(serving: Serving) -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = Site(listener, serving.by_prompt)
        site.start()
        try:
            yield site
        finally:
            site.stop()


@pytest.fixture(params=BACKENDS)
def client(site: Site, request: pytest.FixtureRequest) -> Iterator[SyncClient]:
    with SyncClient(site.url, backend=request.param, retry=Retry(backoff=0)) as client:
        yield client
