"""Chats on the page: asking, stopping, failures, retries and reloads."""

from __future__ import annotations

import pytest
from anyio.from_thread import BlockingPortal
from support.browsing import BOUND, Browser, ChatTab, PuppetModel, expect, site_of, tab_of

from gprochat_anyio.site import ModelError, Turn

pytestmark = pytest.mark.slow


def test_a_chat_with_the_offline_model(browser: Browser, portal: BlockingPortal) -> None:
    with site_of(portal, None, secret_key="the secret key") as url, tab_of(browser, url) as tab:
        tab.ask("Hello, **you**")
        expect(tab.replies).to_contain_text("It runs no language model", ignore_case=True)
        expect(tab.replies).to_contain_text("You said: Hello, you")
        expect(tab.replies.locator("strong")).to_have_text("you")
        expect(tab.questions).to_have_text("Hello, **you**")
        tab.settled()
        assert "the secret key" not in tab.page.content()
        assert all(request.startswith(f"{url}/") for request in tab.requests)


def test_text_is_shown_as_it_arrives_and_sent_as_history(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.say("first ")
    expect(tab.replies).to_have_text("first")
    expect(tab.button("Stop")).to_be_visible()
    model.end("text")
    tab.settled()
    expect(tab.replies).to_have_text("first text")
    tab.ask("two")
    model.end("more")
    expect(tab.replies.last).to_have_text("more")
    tab.settled()
    assert model.asked == [
        (Turn("user", "one"),),
        (Turn("user", "one"), Turn("model", "first text"), Turn("user", "two")),
    ]


def test_stop_aborts_the_request_and_keeps_the_text(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.say("a part")
    expect(tab.replies).to_have_text("a part")
    tab.button("Stop").click()
    tab.settled()
    assert model.left.wait(BOUND / 1000)
    expect(tab.replies).to_have_text("a part")
    expect(tab.page.locator(".note")).to_have_text("Stopped")
    tab.page.reload()
    expect(tab.replies).to_have_text("a part")
    tab.ask("two")
    model.end("more")
    expect(tab.replies.last).to_have_text("more")
    assert model.asked[-1][1] == Turn("model", "a part")


def test_escape_stops_before_the_first_text(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    expect(tab.waiting).to_be_visible()
    tab.page.keyboard.press("Escape")
    expect(tab.error).to_have_text("Stopped before the first text.")
    assert model.left.wait(BOUND / 1000)
    tab.button("Retry").click()
    model.end("a reply")
    expect(tab.replies).to_have_text("a reply")
    expect(tab.error).to_be_hidden()


def test_turns_and_a_running_reply_survive_a_reload(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.end("*ONE*")
    tab.settled()
    tab.ask("two")
    model.say("TW")
    expect(tab.replies.last).to_have_text("TW")
    tab.page.reload()
    expect(tab.questions).to_have_text(["one", "two"])
    expect(tab.replies).to_have_text(["ONE", "TW"])
    expect(tab.replies.first.locator("em")).to_have_text("ONE")
    # Stopped, not failed: the text so far is part of the history.
    expect(tab.page.locator(".note").last).to_have_text("Stopped")
    expect(tab.error).to_be_hidden()
    tab.ask("three")
    model.end("THREE")
    tab.settled()
    assert model.asked[-1][-2:] == (Turn("model", "TW"), Turn("user", "three"))


@pytest.mark.parametrize("marker", ["Internal server error", "InternalInternal server error"])
def test_a_marked_reply_has_failed(marker: str, tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.say("some text ", marker[:12])
    expect(tab.replies).to_contain_text("some text")
    model.end(marker[12:])
    expect(tab.error).to_have_text("The reply was interrupted.")
    expect(tab.replies).to_have_text(f"some text {marker[:-21]}".strip())
    tab.button("Retry").click()
    model.end("a reply about an Internal server error!")
    tab.settled()
    expect(tab.replies).to_have_text("a reply about an Internal server error!")
    assert model.asked == [(Turn("user", "one"),)] * 2


def test_errors_of_the_model_are_shown_and_retried(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.fail(ModelError("<b>Quota</b> exceeded"))
    expect(tab.error).to_have_text("<b>Quota</b> exceeded")
    tab.page.reload()
    expect(tab.error).to_have_text("This question has no complete reply.")
    tab.button("Retry").click()
    model.say("part")
    expect(tab.replies).to_have_text("part")
    model.fail(OSError())
    expect(tab.error).to_have_text("The reply was interrupted.")
    tab.button("Retry").click()
    model.end()
    expect(tab.error).to_have_text("The model sent no text.")
    tab.ask("two")
    model.end("TWO")
    tab.settled()
    assert model.asked[-1] == (Turn("user", "two"),)


def test_a_site_that_cannot_be_reached(tab: ChatTab, model: PuppetModel) -> None:
    tab.page.context.set_offline(True)
    tab.ask("one")
    expect(tab.error).to_have_text("The site cannot be reached.")
    tab.page.context.set_offline(False)
    tab.button("Retry").click()
    model.end("back")
    expect(tab.replies).to_have_text("back")


def test_regenerate_replaces_the_reply_only_by_a_new_one(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.end("first")
    tab.settled()
    tab.button("Regenerate").click()
    model.say("sec")
    expect(tab.replies).to_have_text("sec")
    model.fail(OSError())
    expect(tab.error).to_have_text("The reply was interrupted.")
    expect(tab.replies).to_have_text("first")
    tab.button("Regenerate").click()
    model.end("second")
    expect(tab.replies).to_have_text("second")
    expect(tab.error).to_be_hidden()
    assert model.asked == [(Turn("user", "one"),)] * 3


def test_edit_the_last_question(tab: ChatTab, model: PuppetModel) -> None:
    for question in ("one", "two"):
        tab.ask(question)
        model.end(question.upper())
        tab.settled()
    expect(tab.button("Edit")).to_have_count(1)
    tab.button("Edit").click()
    edited = tab.page.get_by_label("Edit the question")
    edited.fill("not this")
    edited.press("Escape")
    expect(tab.questions).to_have_text(["one", "two"])
    tab.button("Edit").click()
    edited.fill("three")
    edited.press("Enter")
    model.end("THREE")
    tab.settled()
    expect(tab.questions).to_have_text(["one", "three"])
    expect(tab.replies).to_have_text(["ONE", "THREE"])
    assert model.asked[-1] == (Turn("user", "one"), Turn("model", "ONE"), Turn("user", "three"))


def test_an_edited_question_waits_for_the_reply(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    model.end("ONE")
    tab.settled()
    tab.button("Edit").click()
    tab.ask("two")
    edited = tab.page.get_by_label("Edit the question")
    edited.fill("three")
    edited.press("Enter")  # not yet, but the text stays
    expect(edited).to_have_value("three")
    model.end("TWO")
    tab.settled()
    edited.press("Enter")
    model.end("THREE")
    tab.settled()
    expect(tab.questions).to_have_text(["one", "two", "three"])


def test_the_cookie_is_renewed(tab: ChatTab, model: PuppetModel) -> None:
    tab.page.context.clear_cookies()
    tab.ask("one")
    model.end("ONE")
    expect(tab.replies).to_have_text("ONE")


def test_at_most_99_messages_are_sent(tab: ChatTab, model: PuppetModel) -> None:
    turns = [{"question": f"q{n}", "reply": f"r{n}", "state": "done"} for n in range(60)]
    tab.store({"id": "a", "title": "t", "updated": 1, "turns": turns})
    tab.ask("last")
    model.end("LAST")
    tab.settled()
    (asked,) = model.asked
    assert len(asked) == 99
    assert (asked[0], asked[-1]) == (Turn("user", "q11"), Turn("user", "last"))
