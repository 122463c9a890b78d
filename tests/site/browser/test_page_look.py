"""Legibility, targets, focus and the empty state of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anyio.from_thread import BlockingPortal
from support.browsing import Browser, ChatTab, PuppetModel, expect, site_of, tab_of

from gprochat_anyio.site import Turn

pytestmark = pytest.mark.slow

WIDTHS = [400, 1400]
CONTROLS = """() => {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const paint = (colors) => {
        for (const color of colors) {
            context.fillStyle = color;
            context.fillRect(0, 0, 1, 1);
        }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const luminance = (rgb) => rgb
        .map((value) => value / 255)
        .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const backs = (node) => node
        ? [...backs(node.parentElement), getComputedStyle(node).backgroundColor] : ["white"];
    const seen = [...document.querySelectorAll("button:enabled, .note, textarea")].filter(
        (node) => node.checkVisibility({ visibilityProperty: true })
            && (node.textContent || node.placeholder));
    return seen.map((node) => {
        const pseudo = node.matches("textarea") ? "::placeholder" : null;
        const { color, fontSize } = getComputedStyle(node, pseudo);
        const [dark, light] = [paint(backs(node)), paint([...backs(node), color])]
            .map(luminance).sort((one, other) => one - other);
        const { width, height } = node.getBoundingClientRect();
        return {
            name: node.textContent || node.placeholder,
            contrast: (light + 0.05) / (dark + 0.05),
            target: node.matches("button") ? Math.min(width, height) : 32,
            size: parseFloat(fontSize),
        };
    });
}"""
"""Script that measures each control: contrast of its text, smallest side, and size of its font."""


@pytest.fixture
def look(tab: ChatTab) -> Iterator[ChatTab]:
    yield tab
    tab.page.emulate_media(color_scheme="light")
    tab.page.set_viewport_size({"width": 1280, "height": 720})


def test_texts_of_controls_are_legible_and_easy_to_hit(look: ChatTab, model: PuppetModel) -> None:
    look.ask("one")
    model.end("```\ncode\n```")
    look.settled()
    look.ask("two")
    model.say("TWO")
    expect(look.replies.last).to_have_text("TWO")
    look.button("Stop").click()
    look.settled()
    for scheme in ("light", "dark"):
        look.page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            look.page.set_viewport_size({"width": width, "height": 800})
            controls = look.page.evaluate(CONTROLS)
            names = {control["name"] for control in controls}
            assert names >= {"Copy", "Edit", "Regenerate", "Stopped", "Send", "Ask something"}
            bad = [
                control
                for control in controls
                if control["contrast"] < 4.5 or control["target"] < 32 or control["size"] < 14
            ]
            assert bad == [], (scheme, width)


def test_only_the_keyboard_shows_a_focus_ring(tab: ChatTab) -> None:
    shown = """() => {
        const style = getComputedStyle(document.activeElement);
        const isClear = style.outlineColor === "rgba(0, 0, 0, 0)";
        return style.outlineStyle !== "none" && style.outlineWidth !== "0px" && !isClear;
    }"""
    border = "getComputedStyle(document.querySelector('#composer textarea')).borderColor"
    expect(tab.field).to_be_focused()
    assert not tab.page.evaluate(shown)
    focused = tab.page.evaluate(border)
    tab.page.keyboard.press("Tab")
    expect(tab.button("Send")).to_be_focused()
    assert tab.page.evaluate(shown)
    assert tab.page.evaluate(border) != focused
    tab.page.keyboard.press("Shift+Tab")
    expect(tab.field).to_be_focused()
    assert tab.page.evaluate(border) == focused


def test_an_empty_conversation_suggests_questions(tab: ChatTab, model: PuppetModel) -> None:
    examples = tab.page.locator(".welcome button")
    expect(examples).to_have_count(3)
    expect(tab.page.locator(".welcome .note")).to_have_count(0)  # this model has no name
    example = examples.nth(1).text_content() or ""
    examples.nth(1).click()
    model.end("a reply")
    tab.settled()
    assert model.asked == [(Turn("user", example),)]
    expect(examples).to_have_count(0)
    expect(tab.field).to_be_focused()
    tab.button("New conversation").click()
    expect(examples).to_have_count(3)


@pytest.mark.parametrize("passwords", [[], ["right"]])
def test_the_name_of_the_model(
    passwords: list[str], browser: Browser, portal: BlockingPortal, model: PuppetModel
) -> None:
    options = {"model_name": "<b>llama</b>", "passwords": passwords}
    with site_of(portal, model, **options) as url, tab_of(browser, url) as tab:
        name = tab.page.locator(".welcome .note")
        expect(name).to_have_text([] if passwords else ["Replies are by <b>llama</b>."])


@pytest.mark.parametrize("width", WIDTHS)
def test_latest_covers_no_text(width: int, look: ChatTab, model: PuppetModel) -> None:
    look.page.set_viewport_size({"width": width, "height": 800})
    look.ask("one")
    model.end("a line\n\n" * 100)
    look.settled()
    scroller = look.page.locator("#scroller")
    scroller.evaluate("node => { node.scrollTop -= 600; }")
    latest = look.button("↓ Latest")
    expect(latest).to_be_visible()
    top = scroller.evaluate("node => node.scrollTop")
    bottom, start = look.page.evaluate(
        """() => [
            document.querySelector("#scroller").getBoundingClientRect().bottom,
            document.querySelector("#to-end").getBoundingClientRect().top,
        ]"""
    )
    assert start >= bottom
    assert scroller.evaluate("node => node.scrollTop") == top
    latest.click()
    expect(latest).to_be_hidden()
    end = "node => node.scrollHeight - node.scrollTop - node.clientHeight"
    assert scroller.evaluate(end) <= 1
