"""Fixtures for the chat page. The browser and its event loop end with this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

if TYPE_CHECKING:  # without Playwright, importing it skips a test module, but would break this one
    from support.browsing import Browser, ChatTab, PuppetModel


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    from support.browsing import chromium  # noqa: PLC0415

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("trio") as portal:
        yield portal


@pytest.fixture(scope="package")
def puppet(portal: BlockingPortal) -> Iterator[PuppetModel]:
    from support.browsing import PuppetModel  # noqa: PLC0415

    puppet = PuppetModel(portal)
    yield puppet
    puppet.close()


@pytest.fixture(scope="package")
def site(portal: BlockingPortal, puppet: PuppetModel) -> Iterator[str]:
    from support.browsing import site_of  # noqa: PLC0415

    with site_of(portal, puppet, secret_key="the secret key") as url:
        yield url


@pytest.fixture
def model(puppet: PuppetModel) -> Iterator[PuppetModel]:
    yield puppet
    puppet.reset()


@pytest.fixture(scope="module")
def shared_tab(browser: Browser, site: str) -> Iterator[ChatTab]:
    from support.browsing import tab_of  # noqa: PLC0415

    with tab_of(browser, site) as tab:
        yield tab


@pytest.fixture
def tab(shared_tab: ChatTab, site: str) -> Iterator[ChatTab]:
    shared_tab.begin_anew(site)
    yield shared_tab
    assert shared_tab.problems == []
