"""Types of the interface without async. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

from gprochat_anyio import (
    Client,
    Fleet,
    Message,
    Outcome,
    Reply,
    SyncClient,
    SyncConversation,
    SyncReplyStream,
    Timeouts,
    Timing,
    Usage,
)


class Subclass(SyncClient):
    pass


def clients(fleet: Fleet) -> None:
    with SyncClient("https://chat.example.org", backend="trio") as client:
        assert_type(client, SyncClient)
        assert_type(client.ask("Hi", timeouts=Timeouts(total=30)), Reply)
        assert_type(client.gather(["Hi", "Ho"]), list[Outcome])
        assert_type(client.check_password(), bool)
    assert_type(Subclass.of(fleet), Subclass)
    assert_type(Subclass.of(Client.gemini()), Subclass)
    assert_type(SyncClient.from_env(), SyncClient)
    SyncClient("https://chat.example.org", backend="curio")  # type: ignore[arg-type]
    SyncClient.of(client)  # type: ignore[arg-type]


def streams(client: SyncClient) -> None:
    with client.stream("Hi") as chunks:
        assert_type(chunks, SyncReplyStream)
        for text in chunks:
            assert_type(text, str)
        assert_type(chunks.read(), str)
        chunks.stop()
    assert_type(chunks.text, str)
    assert_type(chunks.timing, Timing)
    assert_type(chunks.usage, Usage | None)


def conversations(client: SyncClient) -> None:
    chat = client.conversation(system="Be brief.")
    assert_type(chat, SyncConversation)
    assert_type(client.conversation_from_json(chat.to_json()), SyncConversation)
    assert_type(chat.ask("Hi"), Reply)
    assert_type(chat.stream("Hi"), SyncReplyStream)
    assert_type(chat.retry(), SyncReplyStream)
    assert_type(chat.undo(), tuple[Message, ...])
