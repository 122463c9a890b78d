"""Types of clients, streams, conversations and settings. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Literal, assert_type

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectStreamStatistics

from gprochat_anyio import (
    AuthenticationError,
    Client,
    Conversation,
    EmptyReplyError,
    EndpointState,
    Fleet,
    GPROChat,
    GPROChatError,
    InsecureSiteWarning,
    InvalidPromptError,
    Limiter,
    LimiterStatistics,
    Message,
    RateLimitError,
    Reply,
    ReplyInterruptedError,
    ReplyStream,
    RequestTimeoutError,
    Retry,
    SiteConnectionError,
    SiteError,
    Timeouts,
    Timing,
    UnexpectedResponseError,
    Usage,
    format_prompt,
)
from gprochat_anyio.site import Turn


async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    yield turns[-1].text


async def numbers(turns: tuple[Turn, ...]) -> AsyncIterator[int]:
    yield len(turns)


class Subclass(Client):
    pass


def clients() -> None:
    limits = Timeouts(connect=5, first_chunk=20.0, idle=None)
    assert_type(Client("https://chat.example.org", secret_key="x", timeouts=limits), Client)
    assert_type(Client.openai("http://127.0.0.1/v1", model="m", fields={"top_p": 0.5}), Client)
    assert_type(Client.gemini(), Client)
    assert_type(Client.of(model), Client)
    assert_type(Subclass.from_env(retry=Retry(attempts=1)), Subclass)
    Client.of(numbers)  # type: ignore[arg-type]
    Client(secret_key="x")  # type: ignore[call-arg]
    Client("https://chat.example.org", "positional")  # type: ignore[call-arg]
    Timeouts(5)  # type: ignore[call-arg]
    Retry(attempts="3")  # type: ignore[arg-type]


async def asking(client: Client) -> None:
    async with client as entered:
        assert_type(entered, Client)
    reply = await client.ask("Hi", timeouts=Timeouts(total=30))
    assert_type(reply, Reply)
    assert_type(reply.text, str)
    assert_type(reply.timing, Timing)
    assert_type(reply.timing.first_chunk, float)
    assert_type(reply.timing.chunks, int)
    assert_type(reply.finish_reason, str | None)
    assert_type(reply.usage, Usage | None)
    assert_type(client.model, str | None)
    assert_type(client.timeouts, Timeouts)
    assert_type(client.retry, Retry)
    assert_type(await client.check_password(), bool)
    reply.text = ""  # type: ignore[misc]
    await client.ask(3)  # type: ignore[arg-type]
    await client.ask("Hi", timeouts=30)  # type: ignore[arg-type]


async def prompts(client: Client) -> None:
    await client.ask([Message("user", "Hi"), Message("model", "Hello"), Message("user", "?")])
    await client.ask([{"role": "user", "content": "Hi"}])
    Message(3, "Hi")  # type: ignore[arg-type]
    assert_type(format_prompt([{"role": "user", "content": "Hi"}]), str)


async def streaming(client: Client) -> None:
    async with client.stream("Hi") as chunks:
        assert_type(chunks, ReplyStream)
        channel: ObjectReceiveStream[str] = chunks
        async for text in chunks:
            assert_type(text, str)
        assert_type(await channel.receive(), str)
        assert_type(chunks.receive_nowait(), str)
        assert_type(await chunks.read(), str)
        assert_type(chunks.statistics(), MemoryObjectStreamStatistics)
        chunks.stop()
    assert_type(chunks.text, str)
    assert_type(chunks.timing, Timing)
    assert_type(chunks.usage, Usage | None)
    client.stream("Hi", Timeouts())  # type: ignore[call-arg]


async def channels(client: Client) -> None:
    send, _ = anyio.create_memory_object_stream[str]()
    tagged, _ = anyio.create_memory_object_stream[tuple[int, str]]()
    assert_type(await client.stream_to("Hi", send), Reply)
    assert_type(await client.stream_to("Hi", tagged, tag=1), Reply)
    await client.stream_to("Hi", tagged)  # type: ignore[arg-type]
    await client.stream_to("Hi", tagged, tag="one")  # type: ignore[misc]


async def fleets(client: Client, limiter: Limiter) -> None:
    async with Fleet([client, client], eject_after=3, hedge_after=2.0) as fleet:
        assert_type(fleet, Fleet)
        assert_type(await fleet.ask("Hi"), Reply)
        assert_type(fleet.clients, tuple[Client, ...])
        async with fleet.stream("Hi") as chunks:
            assert_type(chunks.client, Client)
            stream: ReplyStream = chunks
            assert_type(stream.text, str)
    for state in fleet.states:
        assert_type(state, EndpointState)
        assert_type(state.state, Literal["open", "paused", "ejected"])
        assert_type(state.until, float | None)
        assert_type(state.error, GPROChatError | None)
    assert_type(limiter.statistics(), LimiterStatistics)
    assert_type(limiter.max_at_once, int | None)
    Fleet(client)  # type: ignore[arg-type]
    Fleet([fleet])  # type: ignore[list-item]


async def conversations(client: Client, fleet: Fleet) -> None:
    chat = Conversation(client, system="Be brief.", max_messages=None)
    Conversation(fleet)
    assert_type(await chat.ask("Hi"), Reply)
    assert_type(chat.stream("Hi"), ReplyStream)
    assert_type(chat.retry(), ReplyStream)
    assert_type(chat.undo(), tuple[Message, ...])
    assert_type(chat.messages, tuple[Message, ...])
    assert_type(chat.system, str | None)
    assert_type(chat.to_json(), str)
    assert_type(Conversation.from_json(client, "[]"), Conversation)
    chat.system = None
    chat.messages = ()  # type: ignore[misc]


def errors(error: GPROChatError) -> None:
    if isinstance(error, RequestTimeoutError):
        timeout: TimeoutError = error
        assert_type(error.phase, Literal["connect", "first_chunk", "idle", "total"])
        assert_type(error.limit, float)
        assert_type(error.partial_text, str)
        del timeout
    elif isinstance(error, RateLimitError):
        site_error: SiteError = error
        assert_type(site_error.status, int)
        assert_type(site_error.code, str | None)
        assert_type(error.retry_after, float | None)
    elif isinstance(error, ReplyInterruptedError):
        assert_type(error.partial_text, str)


def base_classes() -> None:
    site_errors: list[type[SiteError]] = [AuthenticationError, UnexpectedResponseError]
    others: list[type[GPROChatError]] = [SiteConnectionError, EmptyReplyError, *site_errors]
    value_error: type[ValueError] = InvalidPromptError
    warning: type[UserWarning] = InsecureSiteWarning
    del others, value_error, warning


def provider(settings: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    chunks = GPROChat.create_async_generator("", messages, **settings)
    assert_type(chunks, AsyncGenerator[str, None])
    assert_type(GPROChat.generate_signature(0, "Hi"), str)
