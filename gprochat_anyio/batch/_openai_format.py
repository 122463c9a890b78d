"""Format of OpenAI's batch files: requests in the input, responses in the output."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gprochat_anyio import InvalidPromptError, Message, Reply, SiteError
from gprochat_anyio._wire.messages import checked, history
from gprochat_anyio._wire.openai_server import completion_object, error_object, usage_object

_PATH: Final = "/chat/completions"
_NOT_KEPT: Final = (
    *("tools", "functions", "tool_choice", "function_call", "logprobs", "top_logprobs", "audio"),
)
"""Fields of the body that change more of a reply than its text."""

_MODEL: Final = "gprochat"
"""The model's name in a response to a request that does not name one."""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """Request on a line of the input.

    :param fields: The fields of the body, except the messages.
    """

    custom_id: str
    messages: tuple[Message, ...]
    fields: Mapping[str, Any]


def read_request(line: Mapping[str, Any]) -> BatchRequest | InvalidPromptError:
    """Return the request on a line, or the reason why it cannot be sent."""
    if reason := next(_reasons_against(line), None):
        return InvalidPromptError(reason)
    body = line["body"]
    messages = checked(history, body["messages"])
    if isinstance(messages, InvalidPromptError):
        return messages
    fields = {name: body[name] for name in body if name not in {"messages", "stream", "n"}}
    return BatchRequest(line["custom_id"], messages, fields)


def reply_fields(reply: Reply, key: str, model: object) -> dict[str, Any]:
    """Return the fields of a reply's line.

    :param model: The model that the request names, if any.
    """
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    body = completion_object(
        "chat.completion",
        "message",
        message,
        reply.finish_reason or "stop",
        id=f"chatcmpl-{key[:24]}",
        created=int(time.time()),
        model=str(model or _MODEL),
    )
    if reply.usage is not None:
        body["usage"] = usage_object(reply.usage)
    return {"response": _response(200, key, body), "error": None}


def error_fields(error: Exception, key: str) -> dict[str, Any]:
    """Return the fields of a failure's line: the error response, or an error without one."""
    partial = {"partial_text": text} if (text := getattr(error, "partial_text", "")) else {}
    if isinstance(error, SiteError) and error.status >= 400:
        body = error_object(str(error), error.status, code=error.code)
        body["error"].update(partial)
        return {"response": _response(error.status, key, body), "error": None}
    failure = {"code": type(error).__name__, "message": str(error), **partial}
    return {"response": None, "error": failure}


def line_id(key: str) -> str:
    """Return the id of an output line."""
    return f"batch_req_{key[:32]}"


def _response(status: int, key: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": f"req_{key[:32]}", "body": body}


def _reasons_against(line: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons why a request cannot be sent."""
    custom_id, body = line.get("custom_id"), line.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        yield 'give "custom_id", a text that no other line has'
    if line.get("method", "POST") != "POST":
        yield '"method" must be "POST"'
    if not str(line.get("url", _PATH)).endswith(_PATH):
        yield '"url" must be "/v1/chat/completions", the only supported endpoint'
    if not isinstance(body, Mapping) or not isinstance(body.get("messages"), list):
        yield '"body" must be an object with a list "messages"'
    elif name := _lost_field(body):
        yield f'"{name}" of the body asks for more than one text; remove it'
    elif any(_has_more_than_text(message) for message in body["messages"]):
        yield 'a message of the body has more than "role" and "content"'


def _lost_field(body: Mapping[str, Any]) -> str | None:
    """Return the name of a field whose effect an output line cannot hold, or `None`."""
    if body.get("stream"):
        return "stream"
    if body.get("n") not in {None, 1}:
        return "n"
    if body.get("modalities") not in (None, ["text"]):
        return "modalities"
    return next((name for name in _NOT_KEPT if body.get(name)), None)


def _has_more_than_text(message: object) -> bool:
    if not isinstance(message, Mapping):
        return False  # `history` reports it
    others: Sequence[Any] = [message[name] for name in message if name not in {"role", "content"}]
    return any(value is not None for value in others)
