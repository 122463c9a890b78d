"""Speed of the page with 1,000 turns, and with a reply of 1 MiB."""

from __future__ import annotations

import pytest
from support.browsing import ChatTab, PuppetModel, expect

pytestmark = pytest.mark.slow

PARAGRAPH = "Some *text* with `code` and a [link](http://a.test/), of a usual length.\n\n"
MIB = 1024 * 1024
PIECES = 512

WATCH = """() => {
    window.most = 0;
    new MutationObserver((records) => {
        let size = 0;
        for (const { addedNodes } of records)
            for (const node of addedNodes) size += node.textContent.length;
        window.most = Math.max(window.most, size);
    }).observe(document.body, { childList: true, subtree: true });
}"""
"""Script that records the most text that one task has added to the page."""

MOST = 128 * 1024


def test_a_thousand_turns(tab: ChatTab, model: PuppetModel) -> None:
    turns = [{"question": f"q{n}", "reply": PARAGRAPH * 3, "state": "done"} for n in range(1000)]
    tab.store({"id": "a", "title": "t", "updated": 1, "turns": turns})
    expect(tab.replies).to_have_count(1000)
    expect(tab.questions.last).to_be_in_viewport()
    tab.page.evaluate(WATCH)
    tab.ask("more")
    for _ in range(20):
        model.say(PARAGRAPH)
    model.end("The end.")
    expect(tab.replies.last).to_contain_text("The end.")
    tab.settled()
    expect(tab.page.get_by_text("The end.").first).to_be_in_viewport()
    assert 0 < tab.page.evaluate("window.most") < MOST


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PARAGRAPH * (MIB // len(PARAGRAPH)), id="paragraphs"),
        pytest.param("word " * (MIB // 5), id="one line"),
        pytest.param("- *item* with text\n" * (MIB // 19), id="one list"),
        pytest.param("a|b\n-|-\n" + "some text|*more*\n" * (MIB // 17), id="one table"),
        pytest.param("> quoted *text*\n>\n" * (MIB // 18), id="one quote"),
        pytest.param("```\n" + "    let name = 'value';\n" * (MIB // 24) + "```", id="code"),
    ],
)
def test_a_large_reply(text: str, tab: ChatTab, model: PuppetModel, *, full: bool) -> None:
    """A mebibyte of paragraphs; with `--full`, also of each of the others."""
    if not (full or text.startswith(PARAGRAPH)):
        text = text[: 3 * MOST]
    tab.page.evaluate(WATCH)
    tab.ask("one")
    size = len(text) // PIECES + 1
    model.say(*(text[n : n + size] for n in range(0, len(text), size)))
    model.end("\n\nThe end.")
    tab.settled()
    # Playwright's assertions would search the whole page again and again.
    tab.page.locator(".open").wait_for(state="detached", timeout=60_000)
    most = tab.page.evaluate("window.most")
    shown = tab.replies.text_content() or ""
    assert shown.rstrip().endswith("The end.")
    assert len(shown) > len(text) * 0.6
    assert 0 < most < MOST, most
