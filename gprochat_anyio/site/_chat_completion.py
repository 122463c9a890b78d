"""Responses of OpenAI's chat completions API: one JSON object, or server-sent events."""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gprochat_anyio import Usage
from gprochat_anyio._request.model_texts import Texts
from gprochat_anyio._wire.json_body import encode_json
from gprochat_anyio._wire.model_api import Finish, Model, ModelError, Turn
from gprochat_anyio._wire.openai_server import (
    DONE,
    completion_object,
    error_object,
    usage_object,
)
from gprochat_anyio._wire.server_sent_events import encode_event

from ._asgi import end, head, in_own_task, part

KEEP_ALIVE_SECONDS: Final = 15.0
"""Silence after which a stream sends a comment, in seconds. The comment keeps the connection alive.
The response's head precedes it if it has not been sent yet."""

_BYTES_PER_TOKEN: Final = 4
"""Average number of UTF-8 bytes per token in English text, to estimate the usage if the model does
not report it."""

_KEEP_ALIVE: Final = b": keep-alive\n\n"
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # otherwise nginx buffers the events
)

_log = logging.getLogger("gprochat_anyio.site")

_Reason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request for a completion.

    :param streamed: Respond with server-sent events.
    :param counts_tokens: Report the usage in the last event.
    """

    turns: tuple[Turn, ...]
    streamed: bool
    counts_tokens: bool


class Completion:
    """An ASGI response with the model's reply.

    A stream sends its head with the first text, so that an earlier refusal has its own status. A
    later failure is sent as an event, and the stream ends without `[DONE]`. Cancellation stops and
    closes the model. A request is cancelled when its client disconnects.
    """

    def __init__(self, model: Model, request: CompletionRequest, *, name: str, id: str) -> None:
        self._texts = Texts(model, request.turns)
        self._request = request
        self._name = name
        self._id = id
        self._created = int(time.time())
        self._reason: _Reason = "stop"
        self._usage: Usage | None = None
        self._size = 0  # of the reply, in bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._request.streamed:
            await self._stream(scope, receive, send)
        else:
            await in_own_task(partial(self._send_whole, scope, receive, send))

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._whole())(scope, receive, send)

    async def _whole(self) -> Response:
        pieces: list[str] = []
        try:
            while (text := await self._texts.next()) is not None:
                self._take(text)
                pieces.append(text)
                await checkpoint()
        except ModelError as failure:
            if not self._filtered(failure):
                return _failed(failure)
        finally:
            await self._texts.aclose()
        message = {"role": "assistant", "content": "".join(pieces), "refusal": None}
        whole = self._object("chat.completion", "message", message, self._reason)
        return json_response(200, {**whole, "usage": self._tokens()})

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox, inbox = anyio.create_memory_object_stream[str | ModelError](0)
        refusal: ModelError | None = None
        with outbox, inbox:
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._ask, outbox)
                with suppress(OSError):  # raised by some servers if the client has disconnected
                    refusal = await self._forward(inbox, send)
                tg.cancel_scope.cancel()
        if refusal is not None:
            await _failed(refusal)(scope, receive, send)

    async def _ask(self, outbox: ObjectSendStream[str | ModelError]) -> None:
        """Iterate over the model in a task of its own, so that a keep-alive does not cancel it."""
        try:
            while (text := await self._texts.next()) is not None:
                await outbox.send(text)
        except ModelError as failure:
            await outbox.send(failure)
        finally:
            await self._texts.aclose()
        await outbox.aclose()  # not if cancelled: the reply is then incomplete

    async def _forward(
        self, inbox: ObjectReceiveStream[str | ModelError], send: Send
    ) -> ModelError | None:
        """Send the texts. Return a refusal if nothing has been sent yet."""
        opened = False

        async def put(data: bytes) -> None:
            nonlocal opened
            if not opened:
                opened = True
                await send(head(_HEADERS))
                await send(part(self._event({"role": "assistant", "content": ""})))
            await send(part(data))

        while True:
            item: str | ModelError | None = None
            with anyio.move_on_after(KEEP_ALIVE_SECONDS) as silence:
                try:
                    item = await inbox.receive()
                except anyio.EndOfStream:
                    break
            if silence.cancelled_caught:
                await put(_KEEP_ALIVE)
            elif isinstance(item, ModelError):
                if self._filtered(item):
                    break
                if not opened:
                    return item
                _log.warning("a reply was interrupted: the model failed after its head was sent")
                await put(_data(_error_of(item)))
                await send(end())
                return None
            else:
                self._take(item)
                if item:
                    await put(self._event({"content": item}))
        await put(self._event({}, self._reason))
        await self._send_end(send)
        return None

    async def _send_end(self, send: Send) -> None:
        if self._request.counts_tokens:
            last = self._object("chat.completion.chunk", "delta", {}, None)
            await send(part(_data({**last, "choices": [], "usage": self._tokens()})))
        await send(part(encode_event(DONE)))
        await send(end())

    def _take(self, text: str | None) -> None:
        if isinstance(text, Finish):
            self._reason, self._usage = text.reason, text.usage
        elif text:
            self._size += len(text.encode())

    def _tokens(self) -> dict[str, int]:
        """Return the usage that the model reported, or an estimate."""
        if self._usage is not None:
            return usage_object(self._usage)
        prompt_size = sum(len(turn.text.encode()) for turn in self._request.turns)
        sizes = (prompt_size, self._size)
        return usage_object(Usage(*(math.ceil(size / _BYTES_PER_TOKEN) for size in sizes)))

    def _filtered(self, failure: ModelError) -> bool:
        """Return True if a content filter cut the reply off, which is not an error in this API."""
        if self._size and failure.code == "content_filter":
            self._reason = "content_filter"
            return True
        return False

    def _event(self, delta: dict[str, str], reason: _Reason | None = None) -> bytes:
        chunk = self._object("chat.completion.chunk", "delta", delta, reason)
        return _data({**chunk, "usage": None} if self._request.counts_tokens else chunk)

    def _object(
        self, kind: str, part: str, content: dict[str, Any], reason: _Reason | None
    ) -> dict[str, Any]:
        return completion_object(
            kind, part, content, reason, id=self._id, created=self._created, model=self._name
        )


def json_response(status: int, value: object) -> Response:
    """Return a JSON response."""
    return Response(encode_json(value), status, media_type="application/json")


def _failed(failure: ModelError) -> Response:
    response = json_response(failure.status, _error_of(failure))
    if failure.retry_after is not None:
        response.headers["retry-after"] = str(math.ceil(failure.retry_after))
    return response


def _error_of(failure: ModelError) -> dict[str, Any]:
    code = failure.code or ("rate_limit_exceeded" if failure.status == 429 else None)
    return error_object(str(failure), failure.status, code=code)


def _data(value: object) -> bytes:
    return encode_event(encode_json(value))
