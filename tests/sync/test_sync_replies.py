"""SyncClient: replies, errors, settings and conversations without async."""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from support import servers
from support.exceptions import BoomError
from support.raw_site import failing, raw_site
from support.response_bytes import answer
from support.sync_clients import BACKENDS, loop_threads
from support.sync_site import Serving, Site

from gprochat_anyio import (
    Client,
    GPROChatError,
    Message,
    ReplyInterruptedError,
    RequestTimeoutError,
    Retry,
    SiteError,
    SyncClient,
    SyncReplyStream,
    Timeouts,
    gather,
)
from gprochat_anyio._sync.loop_thread import LoopThread
from gprochat_anyio.testing import Refuse, scripted_site

pytestmark = pytest.mark.usefixtures("nothing_is_left")


CANARY = "canary-of-the-prompt"


def test_ask(client: SyncClient, site: Site) -> None:
    reply = client.ask("hi")
    assert reply.text == "HI"
    assert reply.timing.characters == 2
    client.ask([{"role": "user", "content": "a"}, Message("model", "b"), Message("user", "c")])
    assert [m["role"] for m in site.bodies[-1]["messages"]] == ["user", "model", "user"]
    assert len(loop_threads()) == 1


def test_stream_in_a_block(client: SyncClient, serving: Serving) -> None:
    with client.stream("two") as chunks:
        pieces = iter(chunks)
        assert next(pieces) == "one "
        assert chunks.text == "one "
        assert chunks.timing.chunks == 1
        serving.more.release()
        assert list(chunks) == ["two"]
        assert list(chunks) == []
        assert chunks.read() == ""
    assert chunks.text == "one two"
    client.close()
    assert chunks.text == "one two"
    assert chunks.timing.characters == 7


def test_stream_without_a_block(client: SyncClient, serving: Serving) -> None:
    serving.more.release()
    chunks = client.stream("two")
    assert "".join(chunks) == "one two"
    assert chunks.text == "one two"
    with pytest.raises(RuntimeError, match="entered first"):
        _ = client.stream("hi").text
    assert client.stream("hi").read() == "HI"


def test_errors_are_library_errors(client: SyncClient) -> None:
    with pytest.raises(SiteError) as refused:
        client.ask("refused")
    with pytest.raises(ReplyInterruptedError) as cut:
        for _ in client.stream("cut"):
            pass
    assert cut.value.partial_text == "one "
    with pytest.raises(ReplyInterruptedError) as cut_in_block, client.stream("cut") as chunks:
        chunks.read()
    with pytest.raises(RequestTimeoutError) as late:
        client.ask("silent", timeouts=Timeouts(first_chunk=0.01))
    with pytest.raises(RequestTimeoutError), client.stream("silent", timeouts=Timeouts(total=0.01)):
        raise AssertionError
    with pytest.raises(SiteError), client.stream("refused"):
        raise AssertionError
    for error in (refused.value, cut.value, cut_in_block.value, late.value):
        assert error.__context__ is error.__cause__ is None
        files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        assert files <= {__file__, *map(inspect.getfile, (SyncClient, SyncReplyStream, LoopThread))}
    assert client.ask("hi").text == "HI"


@pytest.mark.parametrize("prompt", [CANARY, f"{CANARY}\ud83d"])
def test_errors_hold_no_prompt(prompt: str) -> None:
    with (
        raw_site(failing(500, "no")) as site,
        SyncClient(site.url, retry=Retry(attempts=1)) as client,
    ):
        for way in (
            lambda: client.ask(prompt),
            lambda: client.stream(prompt).read(),
            lambda: client.gather([prompt], on_error="raise"),
            lambda: client.conversation().ask(prompt),
        ):
            with pytest.raises(GPROChatError) as caught:
                way()
            shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            frames = [f for f in shown.stack if "/tests/" not in f.filename]
            assert frames
            assert CANARY not in "".join(str(f.locals) for f in frames)
            assert CANARY not in repr(caught.value)


@pytest.mark.parametrize("right", [True, False])
def test_check_password(right: bool) -> None:
    data = answer(200, b'{"code": 0}' if right else b'{"code": -1}', {})
    requests: list[servers.Request] = []
    handler = servers.repeating(data, seen=requests)
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(servers.serving(handler)) as site:
            with SyncClient(site.url, password="a password") as client:
                assert client.check_password() is right
    assert json.loads(requests[0].body) == {"pass": "a password"}


def test_gather(client: SyncClient) -> None:
    outcomes = client.gather(prompt for prompt in ("a", "refused", "b"))
    assert [o.reply and o.reply.text for o in outcomes] == ["A", None, "B"]
    with pytest.raises(SiteError):
        client.gather(["a", "refused"], on_error="raise")
    with pytest.raises(ValueError, match="prompts is a single str"):
        client.gather("abc")
    with pytest.raises(ValueError, match="max_at_once"):
        client.gather(["a"], max_at_once=0)

    async def prompts() -> AsyncIterator[str]:
        yield "a"

    assert [o.unwrap().text for o in client.gather(prompts())] == ["A"]


def test_conversation(client: SyncClient, site: Site, serving: Serving) -> None:
    conversation = client.conversation("Be brief.", 5)
    assert conversation.ask("one").text == "BE BRIEF.\n\nONE"
    with conversation.stream("endless") as chunks:
        for _ in chunks:
            break
    assert serving.was_left()
    assert [m.content for m in conversation.messages[2:]] == ["endless", "one "]
    before = conversation.messages
    with pytest.raises(BoomError), conversation.retry() as chunks:
        next(iter(chunks))
        raise BoomError
    assert conversation.messages is before
    for _ in conversation.retry():
        break
    assert [m.content for m in conversation.undo()] == ["endless", "one "]
    conversation.system = None
    again = client.conversation_from_json(conversation.to_json())
    assert (again.system, again.max_messages, again.messages) == (None, 5, conversation.messages)
    assert repr(again) == f"<SyncConversation of 2 messages with {client._client!r}>"
    with again.stream("endless"), pytest.raises(RuntimeError, match="in the middle of a turn"):
        again.ask("two")


def test_settings_are_the_same_as_the_clients() -> None:
    ours = inspect.signature(SyncClient).parameters
    theirs = inspect.signature(Client).parameters
    assert [str(p) for p in ours.values()][:-1] == [str(p) for p in theirs.values()]
    assert list(ours)[-1] == "backend"
    ours = inspect.signature(SyncClient.gather).parameters
    theirs = inspect.signature(gather).parameters
    assert [str(p) for p in ours.values()][2:] == [str(p) for p in theirs.values()][2:]


def test_settings(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    limits, retry = Timeouts(total=3), Retry(attempts=2)
    monkeypatch.setenv("GPROCHAT_URL", site.url)
    with SyncClient.from_env(backend="trio", timeouts=limits, retry=retry) as client:
        assert client.ask("hi").text == "HI"
        assert client.timeouts.total == 3
        assert client.retry is retry
        assert repr(client) == f"<SyncClient of {client._client!r}>"
    with pytest.raises(ValueError, match="backend"):
        SyncClient(site.url, backend="curio")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_connections"):
        SyncClient(site.url, max_connections=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_text_if_entering_the_block_fails(backend: Any) -> None:
    with scripted_site(Refuse(500, "broken")) as site:
        with SyncClient(site.url, backend=backend) as client:
            chunks = client.stream("Hi")
            with pytest.raises(RuntimeError, match="entered first"):
                _ = chunks.text
            with pytest.raises(SiteError), chunks:
                pass
            assert chunks.text == ""
            with pytest.raises(RuntimeError, match="entered first"):
                _ = chunks.timing
