"""Every async test runs on asyncio, on asyncio with uvloop, and on Trio."""

from __future__ import annotations

from typing import Any

import pytest
from loops import LOOPS, virtual_backend


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop; `@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)`
    asks for loops in virtual time instead."""
    return virtual_backend(request.param)
