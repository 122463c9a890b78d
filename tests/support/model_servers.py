"""Responses of model APIs, byte for byte as their documentation and their servers have them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio

from gprochat_anyio.site import ModelError, Turn

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"

QUESTION = (Turn("user", "Hello"),)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: Any, eol: str = "\n") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}{eol}{eol}".encode()


def stream(*datas: Any, eol: str = "\n") -> bytes:
    """Return a complete response with one HTTP chunk per event."""
    return HEAD + b"".join(chunk(event(data, eol)) for data in datas) + END


def answer(status: int, body: Any, *fields: str, kind: str = "application/json") -> bytes:
    """Return a response that is not a stream."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    head = [
        f"HTTP/1.1 {status} Whatever",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        *fields,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


def gemini(text: str | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a `GenerateContentResponse`."""
    candidate: dict[str, Any] = {"index": 0}
    if text is not None:
        candidate["content"] = {"parts": [{"text": text}], "role": "model"}
    if reason is not None:
        candidate["finishReason"] = reason
    usage = {"promptTokenCount": 4, "totalTokenCount": 12}
    return {
        "candidates": [{**candidate, **more}],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "mNmZaP",
    }


def openai(text: str | None = None, reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a `chat.completion.chunk`."""
    told = delta if text is None else {**delta, "content": text}
    choice = {"index": 0, "delta": told, "logprobs": None, "finish_reason": reason}
    return {
        "id": "chatcmpl-552",
        "object": "chat.completion.chunk",
        "created": 1764000000,
        "model": "llama3.2",
        "system_fingerprint": "fp_ollama",
        "choices": [choice],
    }


async def told(texts: AsyncIterator[str]) -> tuple[list[str], str | None, ModelError | None]:
    """Return the texts, the finish reason and the failure."""
    said: list[str] = []
    reason = None
    with anyio.fail_after(5):
        try:
            async for text in texts:
                if text:
                    said.append(text)
                else:
                    reason = getattr(text, "reason", None)
        except ModelError as error:
            return said, reason, error
    return said, reason, None
