"""Two tabs with one conversation: nothing that either of them asked is lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
from support.browsing import BOUND, ChatTab, PuppetModel, expect

pytestmark = pytest.mark.slow

KEYS = "Object.keys(localStorage).filter((key) => key.startsWith('gprochat.chat.'))"


@pytest.fixture
def other(tab: ChatTab, model: PuppetModel) -> Iterator[ChatTab]:
    """Yield a second tab, which shows the same conversation with one turn as the first one."""
    tab.ask("one")
    model.end("ONE")
    tab.settled()
    other = ChatTab(tab.page.context.new_page())
    other.page.goto(tab.page.url)
    expect(other.replies).to_have_text("ONE")
    yield other
    assert other.problems == []
    other.page.close()


def show_same(tab: ChatTab, other: ChatTab, questions: list[str], replies: list[str]) -> None:
    """Assert that both tabs, and one that is opened later, show these turns."""
    for each in (tab, other):
        expect(each.questions).to_have_text(questions)
        expect(each.replies).to_have_text(replies)
    other.page.reload()
    expect(other.questions).to_have_text(questions)
    expect(other.replies).to_have_text(replies)


def test_what_another_tab_asks_is_shown(tab: ChatTab, other: ChatTab, model: PuppetModel) -> None:
    other.ask("two")
    model.end("TWO")
    expect(tab.replies).to_have_text(["ONE", "TWO"])
    tab.ask("three")
    model.end("THREE")
    tab.settled()
    assert [turn.text for turn in model.asked[-1]] == ["one", "ONE", "two", "TWO", "three"]


def test_two_tabs_ask_at_the_same_time(tab: ChatTab, other: ChatTab, model: PuppetModel) -> None:
    tab.ask("two")
    model.say("TWO")
    expect(tab.replies.last).to_have_text("TWO")
    other.ask("three")
    expect(other.waiting).to_be_visible()
    model.end()  # the reply that has waited longest, which is the first tab's
    tab.settled()
    model.end("THREE")
    other.settled()
    show_same(tab, other, ["one", "two", "three"], ["ONE", "TWO", "THREE"])


def test_an_overwritten_turn_is_saved_again(
    tab: ChatTab, other: ChatTab, model: PuppetModel
) -> None:
    """Browsers do not lock the storage between reading and writing."""
    before = other.page.evaluate(f"{KEYS}.map((key) => [key, localStorage[key]])")
    tab.ask("two")
    model.end("TWO")
    tab.settled()
    expect(other.replies).to_have_count(2)
    other.page.evaluate(
        f"""([before, bound]) => new Promise((resolve, reject) => {{
            addEventListener("storage", () => {{
                if ({KEYS}.every((key) => localStorage[key].includes("TWO"))) resolve();
            }});
            setTimeout(() => reject("not saved again"), bound);
            Object.assign(localStorage, Object.fromEntries(before));
        }})""",
        [before, BOUND],
    )


def test_two_tabs_edit_one_question(tab: ChatTab, other: ChatTab, model: PuppetModel) -> None:
    for each in (tab, other):
        each.button("Edit").click()
    tab.page.get_by_label("Edit the question").fill("two")
    tab.page.keyboard.press("Enter")
    model.say("TWO")
    expect(tab.replies).to_have_text("TWO")
    # The other tab's question is replaced, but not the text that its user is typing.
    expect(other.questions).to_have_text("two")
    other.page.get_by_label("Edit the question").fill("three")
    other.page.keyboard.press("Enter")
    expect(other.waiting).to_be_visible()
    model.end()
    tab.settled()
    model.end("THREE")
    other.settled()
    show_same(tab, other, ["two", "three"], ["TWO", "THREE"])


def test_a_failed_retry_does_not_replace_the_reply_of_another_tab(
    tab: ChatTab, other: ChatTab, model: PuppetModel
) -> None:
    tab.ask("two")
    model.say("TWO")
    expect(tab.replies.last).to_have_text("TWO")
    other.button("Retry").click()
    expect(other.waiting).to_be_visible()
    model.end()
    tab.settled()
    model.fail(OSError())
    other.settled()
    show_same(tab, other, ["one", "two"], ["ONE", "TWO"])


def turn(id: str, reply: str = "", changed: int = 1, **fields: Any) -> dict[str, Any]:
    state = "done" if reply else "failed"
    return {"id": id, "reply": reply, "state": state, "changed": changed, "replaces": [], **fields}


def test_the_order_of_saving_does_not_matter(tab: ChatTab) -> None:
    versions = [
        [turn("a", "A", 1), turn("b"), turn("c", "C", 3)],
        [turn("a", "AA", 2), turn("b", "B", 1), turn("d", "D", 4)],
        [turn("a", "A", 1), turn("b", changed=9), turn("e", "E", 5, replaces=["c", "x"])],
    ]
    best = {"a": "AA", "b": "B", "d": "D", "e": "E"}
    for order in permutations(versions):
        merged = tab.page.evaluate(
            """async (versions) => {
                const { mergedTurns } = await import("./page/turns.js");
                return versions.reduce(mergedTurns);
            }""",
            list(order),
        )
        assert {each["id"]: each["reply"] for each in merged} == best
        assert [each["id"] for each in merged][:2] == ["a", "b"]


def test_conversations_missing_in_the_index_are_found(tab: ChatTab, model: PuppetModel) -> None:
    """Two tabs may write the index at the same time."""
    tab.ask("one")
    model.end("ONE")
    tab.settled()
    tab.page.evaluate('localStorage.setItem(\'gprochat.chats\', \'[{"id": "a", "title": "a"}]\')')
    tab.page.reload()
    expect(tab.replies).to_have_text("ONE")
    expect(tab.page.locator(".open-chat")).to_have_text(["one"])


def delete(tab: ChatTab) -> None:
    tab.page.once("dialog", lambda dialog: dialog.accept())
    tab.button("Delete one").click()
    assert tab.problems == ["Delete “one”?"]
    tab.problems.clear()


def test_a_deletion_in_another_tab_wins(tab: ChatTab, other: ChatTab, model: PuppetModel) -> None:
    tab.ask("two")
    model.say("TWO")
    expect(tab.replies.last).to_have_text("TWO")
    expect(other.questions).to_have_count(2)
    delete(other)
    notice = tab.page.locator("#notice")
    expect(notice).to_contain_text("deleted in another tab")
    assert model.left.wait(BOUND / 1000)
    tab.settled()
    expect(tab.replies).to_have_text(["ONE", "TWO"])
    for each in (tab, other):
        expect(each.page.locator(".open-chat")).to_have_count(0)
        assert each.page.evaluate(KEYS) == []
    tab.ask("three")
    model.end("THREE")
    tab.settled()
    expect(notice).to_be_hidden()
    expect(other.page.locator(".open-chat")).to_have_text("one")
    tab.page.reload()
    expect(tab.questions).to_have_text(["one", "two", "three"])


def test_a_deletion_is_noticed_by_saving(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.say("ONE")
    expect(tab.replies).to_have_text("ONE")
    # As by another tab whose message has not arrived: a tab is not told of its own changes.
    tab.page.evaluate(f"{KEYS}.forEach((key) => localStorage.removeItem(key))")
    model.end()
    expect(tab.page.locator("#notice")).to_contain_text("deleted in another tab")
    assert tab.page.evaluate(KEYS) == []


def test_a_deletion_wins_over_saving_at_the_same_time(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.end("ONE")
    tab.settled()
    tab.page.evaluate(
        f"""() => {{
            const [key] = {KEYS};
            dispatchEvent(new StorageEvent("storage", {{ key, newValue: null }}));
        }}"""
    )
    expect(tab.page.locator("#notice")).to_contain_text("deleted in another tab")
    assert tab.page.evaluate(KEYS) == []
