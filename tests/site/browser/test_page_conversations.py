"""Several conversations on the page, and their export and import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.browsing import ChatTab, PuppetModel, expect

from gprochat_anyio import Client, Conversation, Message
from gprochat_anyio.site import Turn

pytestmark = pytest.mark.slow

TRICKY = """# A *title*

```md
<!-- gprochat: user -->
## You
\\<!-- gprochat: model -->
```


é 🙂
"""


def chat(id: str, *turns: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {
        "id": id,
        "title": f"title of {id}",
        "updated": 1,
        "turns": [{"question": q, "reply": r, "state": "done"} for q, r in turns],
        **fields,
    }


def exported(tab: ChatTab, button: str) -> tuple[str, str]:
    with tab.page.expect_download() as downloading:
        tab.button(button).click()
    download = downloading.value
    return download.suggested_filename, Path(download.path()).read_text(encoding="utf-8")


def test_several_conversations(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("about cats")
    model.end("CATS")
    tab.settled()
    tab.button("New conversation").click()
    expect(tab.replies).to_have_count(0)
    tab.ask("about dogs")
    model.end("DOGS")
    tab.settled()
    assert model.asked[-1] == (Turn("user", "about dogs"),)
    chats = tab.page.locator(".open-chat")
    expect(chats).to_have_text(["about dogs", "about cats"])
    tab.button("about cats").click()
    expect(tab.replies).to_have_text("CATS")
    tab.page.reload()
    expect(tab.replies).to_have_text("DOGS")


def test_a_reply_continues_while_another_conversation_is_shown(
    tab: ChatTab, model: PuppetModel
) -> None:
    tab.ask("slow")
    model.say("one ")
    expect(tab.replies).to_have_text("one")
    tab.button("New conversation").click()
    expect(tab.button("Send")).to_be_visible()
    model.say("two ")
    tab.button("slow").click()
    expect(tab.replies).to_have_text("one two")
    expect(tab.button("Stop")).to_be_visible()
    tab.button("New conversation").click()
    model.end("three")
    tab.button("slow").click()
    expect(tab.replies).to_have_text("one two three")
    tab.settled()


def test_a_deleted_conversation_does_not_come_back(tab: ChatTab, model: PuppetModel) -> None:
    tab.store(chat("a", ("qa", "ra"), updated=2), chat("b", ("qb", "rb")))
    tab.ask("more")
    model.say("text")
    expect(tab.replies.last).to_have_text("text")
    tab.page.once("dialog", lambda dialog: dialog.accept())
    tab.button("Delete title of a").click()
    assert tab.problems == ["Delete “title of a”?"]
    tab.problems.clear()
    assert model.left.wait(10)
    expect(tab.page.locator(".open-chat")).to_have_text(["title of b"])
    tab.page.reload()
    expect(tab.questions).to_have_text(["qb"])
    assert tab.page.evaluate("Object.keys(localStorage).sort()") == [
        "gprochat.chat.b",
        "gprochat.chats",
    ]


def test_json_round_trip(tab: ChatTab) -> None:
    client = Client("http://site.test")
    saved = Conversation(client, system="Be brief.", max_messages=99)
    history = [{"role": "user", "content": "é"}, {"role": "assistant", "content": TRICKY}] * 2
    messages = json.loads(Conversation.from_json(client, history).to_json())["messages"]
    whole = json.loads(saved.to_json()) | {"messages": messages}
    tab.import_file("river.json", json.dumps(whole))
    expect(tab.page.locator("#title")).to_have_text("river")
    name, text = exported(tab, "Export JSON")
    assert name == "river.json"
    assert json.loads(text) == whole
    read = Conversation.from_json(client, text)
    assert (read.system, len(read.messages)) == ("Be brief.", 4)
    assert read.messages[1] == Message("model", TRICKY)


def test_a_system_text_is_sent_as_the_library_does(tab: ChatTab, model: PuppetModel) -> None:
    tab.store(chat("a", ("one", "ONE"), system="Be brief."))
    tab.ask("two")
    model.end("TWO")
    tab.settled()
    assert model.asked == [
        (Turn("user", "Be brief.\n\none"), Turn("model", "ONE"), Turn("user", "two"))
    ]


def test_markdown_round_trip(tab: ChatTab) -> None:
    tab.store(chat("a", (TRICKY, TRICKY), ("two\nlines", "x")))
    name, text = exported(tab, "Export Markdown")
    assert name == "title-of-a.md"
    assert text.startswith("# title of a\n\n<!-- gprochat: user -->\n## You\n\n# A *title*\n")
    _, before = exported(tab, "Export JSON")
    for form in (text, text.replace("\n", "\r\n")):
        tab.import_file("other.md", form)
        expect(tab.page.locator(".open-chat")).to_have_count(2)
        assert exported(tab, "Export JSON")[1] == before
        tab.page.once("dialog", lambda dialog: dialog.accept())
        tab.page.locator(".current .remove-chat").click()
    tab.problems.clear()


def test_the_history_of_the_original_page(tab: ChatTab, model: PuppetModel) -> None:
    history = [
        {"role": "user", "content": "dropped"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "dropped"},
        {"role": "assistant", "content": "**ONE**"},
        {"role": "user", "content": "not answered"},
    ]
    tab.import_file("history.json", json.dumps(history))
    expect(tab.questions).to_have_text(["one", "not answered"])
    expect(tab.replies.locator("strong")).to_have_text("ONE")
    tab.button("Retry").click()
    model.end("TWO")
    tab.settled()
    assert model.asked == [
        (Turn("user", "one"), Turn("model", "**ONE**"), Turn("user", "not answered"))
    ]


NOT_CONVERSATIONS = {
    "": "This file is empty.",
    "# Some Markdown": "This file is neither Markdown nor JSON from this page.",
    "{": "This file is not valid JSON.",
    "[" * 100_000: "This file is not valid JSON.",
    "{}": "This JSON is not a conversation: it has no list of messages.",
    '{"parts": {"map": 5}}': "This JSON is not a conversation: it has no list of messages.",
    '{"turns": [{"role": 1}]}': "This JSON is not a conversation: it has no list of messages.",
    '{"messages": {"map": 5, "length": 1}}': "This JSON is not a conversation: it has no list",
    '{"version": 2, "messages": []}': "This conversation was saved by a newer version.",
    '{"version": {"valueOf": 1, "toString": 1}, "messages": []}': "Its version is not a number.",
    '{"system": {"toWellFormed": 5}, "messages": []}': "Its system text is not a text.",
    "[]": "This file contains no question.",
    '[{"role": "assistant", "content": "a"}]': "This file contains no question.",
    "[null]": "Message 1 is not an object with a role and a text.",
    '[["user", "a"]]': "Message 1 is not an object with a role and a text.",
    '[{"role": "system", "content": "a"}]': "Message 1 has no valid role.",
    '[{"role": "constructor", "content": "a"}]': "Message 1 has no valid role.",
    '[{"role": {"toString": 1}, "content": "a"}]': "Message 1 has no valid role.",
    '[{"role": ["user"], "content": "a"}]': "Message 1 has no valid role.",
    '[{"role": "user"}]': "Message 1 has no text.",
    '[{"role": "user", "content": {"toWellFormed": 5}}]': "Message 1 has no text.",
    '[{"role": "user", "content": "a"}, {"role": "model", "parts": {"map": 5}}]': "Message 2",
    '[{"role": "user", "parts": [null]}]': "Message 1 has no text.",
    '[{"role": "user", "parts": [{"text": {"toString": 5}}]}]': "Message 1 has no text.",
}
"""Texts of files, and the sentences that say why they are not conversations."""


def test_files_that_are_not_conversations(tab: ChatTab) -> None:
    notice = tab.page.locator("#notice")
    for text, message in NOT_CONVERSATIONS.items():
        notice.evaluate("node => node.replaceChildren()")
        tab.import_file("file.txt", text)
        expect(notice, text[:80]).to_contain_text(message)
        assert tab.page.locator(".open-chat, .turn").count() == 0


def test_a_full_storage_loses_nothing(tab: ChatTab, model: PuppetModel) -> None:
    tab.store(chat("big", ("q", "r" * (1 << 20))), chat("small", ("qs", "rs"), updated=2))
    tab.page.evaluate(
        """() => {
            for (const size of [1 << 20, 1 << 10])
                for (let n = 0; ; n += 1)
                    try { localStorage.setItem(`${size} ${n}`, "x".repeat(size)); } catch { break; }
        }"""
    )
    chats, notice = tab.page.locator(".open-chat"), tab.page.locator("#notice")
    marked = tab.page.locator("#chats li", has_text="not saved")
    tab.button("New conversation").click()
    tab.ask("a question " * 200)
    model.end("a reply")
    tab.settled()
    expect(notice).to_contain_text("not saved")
    expect(marked).to_have_count(1)
    tab.button("New conversation").click()
    expect(notice).to_contain_text("not saved")
    tab.button("title of small").click()
    expect(tab.replies).to_have_text("rs")
    tab.page.close(run_before_unload=True)
    asked = tab.page.wait_for_event("dialog")
    assert asked.type == "beforeunload"
    asked.dismiss()
    tab.problems.clear()
    expect(chats).to_have_count(3)
    marked.locator(".open-chat").click()
    expect(tab.replies).to_have_text("a reply")
    tab.page.once("dialog", lambda dialog: dialog.accept())
    tab.button("Delete title of big").click()
    tab.problems.clear()
    expect(marked).to_have_count(0)
    expect(notice).to_be_hidden()
    tab.page.reload()
    expect(tab.replies).to_have_text("a reply")


def test_foreign_data_in_the_storage(tab: ChatTab) -> None:
    tab.page.evaluate(
        """() => {
            localStorage.setItem("gprochat.chats", '[null, {"id": "a", "title": "broken"}, 3]');
            localStorage.setItem("gprochat.chat.a", '{"id": "a", "turns": [{"question": 1}]}');
        }"""
    )
    tab.page.reload()
    expect(tab.page.locator(".open-chat")).to_have_text(["broken"])
    tab.button("broken").click()
    expect(tab.page.locator(".open-chat")).to_have_count(0)
