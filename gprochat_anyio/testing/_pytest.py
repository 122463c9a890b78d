"""The pytest plugin: fixtures for scripted sites, and an option that forbids the network.

pytest loads it at every start, so everything is imported on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ._scripted_site import MemorySite, ScriptedSite

_OPTION = "gprochat_forbid_network"


def pytest_addoption(parser: pytest.Parser) -> None:
    what = "allow gprochat_anyio to connect to scripted sites and this machine only"
    group = parser.getgroup("gprochat", "GPROChat")
    group.addoption(
        "--gprochat-forbid-network", action="store_true", default=False, help=what, dest=_OPTION
    )
    parser.addini(_OPTION, what, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(_OPTION) or config.getini(_OPTION):
        from ._forbid import forbid_network  # noqa: PLC0415

        switch = ExitStack()
        switch.enter_context(forbid_network())
        config.add_cleanup(switch.close)


@pytest.fixture
def gprochat_site() -> Iterator[Callable[..., MemorySite]]:
    """Return a function that makes in-memory sites: `site = gprochat_site("Hello")`.

    Its arguments are those of `scripted_site`. The sites exist until the end of the test.
    """
    from ._scripted_site import scripted_site  # noqa: PLC0415

    with ExitStack() as sites:

        def make(*replies: Any, **settings: Any) -> MemorySite:
            return sites.enter_context(scripted_site(*replies, **settings))

        yield make


@pytest.fixture
def live_gprochat_site() -> Iterator[Callable[..., ScriptedSite]]:
    """Return a function that makes sites on 127.0.0.1: `site = live_gprochat_site("Hello")`.

    Its arguments are those of `live_site`. The sites run in a separate thread, so that synchronous
    tests can use them as well, and exist until the end of the test.
    """
    from anyio.from_thread import start_blocking_portal  # noqa: PLC0415

    from ._live_site import live_site  # noqa: PLC0415

    with start_blocking_portal() as portal, ExitStack() as sites:

        def make(*replies: Any, **settings: Any) -> ScriptedSite:
            served = portal.wrap_async_context_manager(live_site(*replies, **settings))
            return sites.enter_context(served)

        yield make
