"""Tests without the garbage collector, which would hide what they look for."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    """Disable the garbage collector, after it has removed what earlier tests have left."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def _frozen() -> None:
    """Leave existing objects out of the module's garbage collections, which would otherwise take
    longer than its tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_garbage_collector(_frozen: None) -> Iterator[None]:
    """Run a test `without_garbage_collector`.

    `pytestmark = pytest.mark.usefixtures("no_garbage_collector")` applies it to a whole module.
    """
    with without_garbage_collector():
        yield
