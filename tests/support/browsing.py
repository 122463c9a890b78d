"""Chromium, driven by Playwright, and sites whose pages it shows."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal

from gprochat_anyio.site import Model, Turn, create_app, serve

try:
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        FilePayload,
        Locator,
        Page,
        expect,
        sync_playwright,
    )
except ImportError:  # pragma: no cover - as on PyPy
    pytest.skip("NO BROWSER TESTS: playwright is not installed", allow_module_level=True)

__all__ = ["BOUND", "Browser", "ChatTab", "Locator", "PuppetModel"]
__all__ += ["chromium", "expect", "site_of", "tab_of"]

NAMES = (
    "chromium-headless-shell",  # takes half the CPU time of the others
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
BOUND = 60_000
"""Timeout of any operation on the page, in milliseconds. Most take about ten."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser that resolves `rebound.test` to this machine, as after DNS rebinding."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"NO BROWSER TESTS: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--host-resolver-rules=MAP *.test 127.0.0.1, EXCLUDE localhost"],
        )
        try:
            yield browser
        finally:
            browser.close()


class PuppetModel:
    """A model that sends the test's texts when the test sends them."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._open()

    def _open(self) -> None:
        self._texts, self._inbox = anyio.create_memory_object_stream[str | Exception | None](
            math.inf
        )
        self.asked: list[tuple[Turn, ...]] = []
        self.left = threading.Event()
        """Set when a reply is cancelled."""

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        self.asked.append(turns)
        inbox = self._inbox
        try:
            while (item := await inbox.receive()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        except anyio.get_cancelled_exc_class():
            self.left.set()
            raise

    def say(self, *texts: str) -> None:
        for text in texts:
            self._portal.call(self._texts.send_nowait, text)

    def end(self, *texts: str) -> None:
        """Send the last texts of a reply."""
        self.say(*texts)
        self._portal.call(self._texts.send_nowait, None)

    def fail(self, error: Exception) -> None:
        self._portal.call(self._texts.send_nowait, error)

    def close(self) -> None:
        """Break off the current reply."""
        self._portal.call(self._texts.close)
        self._portal.call(self._inbox.close)

    def reset(self) -> None:
        """Start again. The current reply is broken off."""
        self.close()
        self._open()


@contextmanager
def site_of(portal: BlockingPortal, model: Model | None, **options: Any) -> Iterator[str]:
    """Serve a site. Yield its URL."""
    serving, url = portal.start_task(partial(serve, create_app(model, **options)))
    try:
        yield url
    finally:
        serving.cancel()


class ChatTab:
    """A browser tab that shows a site's page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(BOUND)
        self.problems: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("popup", lambda popup: self.problems.append(popup.url))
        # By its position: Playwright searches the whole page for a label.
        self.field = page.locator("#composer textarea")
        self.replies = page.locator(".reply-text")
        self.questions = page.locator(".question-text")
        self.waiting = page.locator(".turn.waiting")
        self.error = page.locator(".turn:last-child .error")

    def begin_anew(self, url: str) -> None:
        """Open a site's page as if for the first time. A new tab would take a second."""
        self.page.goto(f"{url}/healthz")  # the same origin, where no script can save data
        self.page.evaluate("localStorage.clear(); sessionStorage.clear()")
        self.problems.clear()
        self.requests.clear()
        self.page.goto(url)

    def ask(self, question: str) -> None:
        self.field.fill(question)
        self.field.press("Enter")

    def import_file(self, name: str, text: str) -> None:
        file = FilePayload(name=name, mimeType="text/plain", buffer=text.encode())
        self.page.locator("#file").set_input_files(file)

    def settled(self) -> None:
        """Wait for the end of the reply."""
        self.waiting.wait_for(state="detached")

    def store(self, *chats: dict[str, object]) -> None:
        """Put conversations into the browser's storage, and reload."""
        self.page.evaluate(
            """chats => {
                const index = chats.map(({ id, title, updated }) => ({ id, title, updated }));
                localStorage.setItem("gprochat.chats", JSON.stringify(index));
                for (const chat of chats)
                    localStorage.setItem(`gprochat.chat.${chat.id}`, JSON.stringify(chat));
            }""",
            list(chats),
        )
        self.page.reload()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


@contextmanager
def tab_of(browser: Browser, url: str, **options: Any) -> Iterator[ChatTab]:
    """Open a tab with its own profile. No script error and no dialog may occur."""
    context: BrowserContext = browser.new_context(**options)
    try:
        tab = ChatTab(context.new_page())
        tab.page.goto(url)
        yield tab
        assert tab.problems == []
    finally:
        context.close()
