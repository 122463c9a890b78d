"""Keyboard, input methods, scrolling, screen readers, and screen sizes."""

from __future__ import annotations

import pytest
from support.browsing import Browser, ChatTab, PuppetModel, expect, tab_of

from gprochat_anyio.site import Turn

pytestmark = pytest.mark.slow

LINES = "".join(f"line {n}\n\n" for n in range(100))


def test_enter_sends_and_shift_enter_does_not(tab: ChatTab, model: PuppetModel) -> None:
    tab.field.press("Enter")
    tab.page.keyboard.type("one")
    tab.page.keyboard.press("Shift+Enter")
    tab.page.keyboard.type("two")
    expect(tab.field).to_have_value("one\ntwo")
    tab.page.keyboard.press("Enter")
    expect(tab.field).to_have_value("")
    tab.page.keyboard.type("next")
    tab.page.keyboard.press("Enter")  # while a reply arrives, nothing is sent or lost
    expect(tab.field).to_have_value("next")
    model.end("a reply")
    tab.settled()
    expect(tab.field).to_be_focused()
    tab.page.keyboard.press("Enter")
    model.end("more")
    tab.settled()
    assert [turns[-1] for turns in model.asked] == [Turn("user", "one\ntwo"), Turn("user", "next")]


def test_enter_ends_a_composition_without_sending(tab: ChatTab, model: PuppetModel) -> None:
    session = tab.page.context.new_cdp_session(tab.page)
    session.send(
        "Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3}
    )
    expect(tab.field).to_have_value("にほん")
    for fields in ({"isComposing": True}, {"keyCode": 229}):
        tab.field.evaluate(
            """(field, fields) => field.dispatchEvent(
                new KeyboardEvent("keydown", { key: "Enter", bubbles: true, ...fields }))""",
            fields,
        )
    session.send("Input.insertText", {"text": "日本"})
    expect(tab.field).to_have_value("日本")
    expect(tab.questions).to_have_count(0)
    tab.page.keyboard.press("Enter")
    model.end("a reply")
    expect(tab.questions).to_have_text("日本")
    tab.settled()


def test_the_view_follows_unless_scrolled_up(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.say(LINES, "the first end")
    expect(tab.page.get_by_text("the first end").first).to_be_in_viewport()
    tab.page.locator("#scroller").hover()
    tab.page.mouse.wheel(0, -600)
    expect(tab.button("↓ Latest")).to_be_visible()
    top = tab.page.locator("#scroller").evaluate("node => node.scrollTop")
    model.say("\n\n", LINES, "the second end")
    expect(tab.replies).to_contain_text("the second end")
    assert tab.page.locator("#scroller").evaluate("node => node.scrollTop") == top
    tab.button("↓ Latest").click()
    expect(tab.page.get_by_text("the second end").first).to_be_in_viewport()
    model.end("\n\n", LINES, "the last end")
    expect(tab.page.get_by_text("the last end").first).to_be_in_viewport()
    expect(tab.button("↓ Latest")).to_be_hidden()
    tab.settled()


def test_screen_readers_announce_each_block_once(tab: ChatTab, model: PuppetModel) -> None:
    heard = tab.page.locator("[aria-live=polite] > p")
    tab.ask("one")
    model.say("a *first* para")
    expect(tab.replies).to_contain_text("first para")
    expect(heard).to_have_count(0)
    model.say("graph\n\n- b\n- c\n\nd\n")
    expect(heard).to_have_text(["a first paragraph", "b c"])
    expect(tab.replies).to_have_attribute("aria-busy", "true")
    model.end()
    expect(heard).to_have_text(["a first paragraph", "b c", "d"])
    expect(tab.replies).to_have_attribute("aria-busy", "false")
    tab.ask("two")
    expect(heard).to_have_count(0)
    model.end(LINES)
    expect(heard).to_have_count(20)
    tab.settled()


def test_controls_have_names_and_are_reached_by_tab(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.end("```\ncode\n```\n\na | b\n-|-\nc | d")
    tab.settled()
    unnamed = tab.page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, nav, [role=region], img")]
            .filter((node) => !node.hidden && !(node.textContent.trim() || node.ariaLabel
                || node.placeholder || node.alt === "" || node.getAttribute("aria-labelledby")))
            .map((node) => node.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        reached.add(
            tab.page.evaluate(
                "document.activeElement.ariaLabel ?? document.activeElement.textContent"
            )
        )
    assert reached >= {
        *("New conversation", "one", "Delete one", "Import", "Export Markdown", "Export JSON"),
        *("Edit", "Code", "Table", "Copy", "Regenerate", "Your question", "Send"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_small_and_large_screens_light_and_dark(
    browser: Browser, site: str, width: int, scheme: str, model: PuppetModel
) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with tab_of(browser, site, **options) as tab:
        tab.ask("a question " * 20)
        model.end("x" * 500, "\n\n```\n", "y" * 500, "\n```\n\n", "a|b|" * 30, "\n", "-|-|" * 30)
        tab.settled()
        expect(tab.replies).to_contain_text("xxx")
        box = tab.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert box[0] <= box[1]
        back, front = tab.page.evaluate(
            """() => ["backgroundColor", "color"].map((name) =>
                getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3)
                    .reduce((sum, part) => sum + Number(part), 0))"""
        )
        assert (back > front) == (scheme == "light")
        new = tab.button("New conversation")
        if width < 760:
            expect(new).to_be_hidden()
            tab.button("Conversations").click()
            expect(new).to_be_visible()
            tab.page.keyboard.press("Escape")
            expect(new).to_be_hidden()
            tab.button("Conversations").click()
        new.click()
        expect(tab.replies).to_have_count(0)
        expect(tab.field).to_be_focused()
