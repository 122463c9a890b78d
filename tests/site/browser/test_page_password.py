"""The password dialog."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anyio.from_thread import BlockingPortal
from support.browsing import Browser, ChatTab, Locator, PuppetModel, expect, site_of, tab_of

pytestmark = pytest.mark.slow


@pytest.fixture
def protected(
    browser: Browser, portal: BlockingPortal, model: PuppetModel
) -> Iterator[tuple[ChatTab, Locator]]:
    """Yield a tab with a site that requires a password, and the dialog's field."""
    with site_of(portal, model, passwords=["right"]) as url, tab_of(browser, url) as tab:
        yield tab, tab.page.get_by_role("textbox", name="Password")


def test_wrong_and_right_password(protected: tuple[ChatTab, Locator], model: PuppetModel) -> None:
    tab, field = protected
    expect(field).to_be_focused()
    field.fill("wrong")
    field.press("Enter")
    expect(tab.page.get_by_role("alert").filter(has_text="This password is wrong.")).to_be_visible()
    field.fill("right")
    tab.button("Continue").click()
    expect(field).to_be_hidden()
    expect(tab.field).to_be_focused()
    tab.ask("one")
    model.end("ONE")
    expect(tab.replies).to_have_text("ONE")
    tab.page.reload()
    expect(tab.replies).to_have_text("ONE")
    expect(field).to_be_hidden()
    tab.ask("two")
    model.end("TWO")
    expect(tab.replies.last).to_have_text("TWO")
    assert "right" not in tab.page.evaluate("JSON.stringify(localStorage)")


def test_a_question_waits_for_the_password(
    protected: tuple[ChatTab, Locator], model: PuppetModel
) -> None:
    tab, field = protected
    field.press("Escape")
    expect(field).to_be_hidden()
    tab.ask("one")
    expect(field).to_be_focused()
    tab.button("Cancel").click()
    expect(tab.error).to_have_text("The site requires a password.")
    tab.button("Retry").click()
    field.fill("right")
    field.press("Enter")
    model.end("ONE")
    expect(tab.replies).to_have_text("ONE")
    assert len(model.asked) == 1


def test_a_site_without_a_password_asks_for_none(tab: ChatTab) -> None:
    expect(tab.field).to_be_focused()
    expect(tab.page.locator("dialog")).to_be_hidden()
