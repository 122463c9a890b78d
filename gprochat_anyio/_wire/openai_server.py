"""The server's end of OpenAI's chat completions: the JSON objects of its responses."""

from __future__ import annotations

from typing import Any, Final

from .usage import Usage

DONE: Final = b"[DONE]"
"""The data of the last event of a stream."""

_KINDS: Final = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


def completion_object(
    kind: str,
    part: str,
    content: dict[str, Any],
    reason: str | None,
    *,
    id: str,
    created: int,
    model: str,
) -> dict[str, Any]:
    """Return a completion, or a chunk of one.

    :param kind: The object's type.
    :param part: The name of the content: `"message"`, or `"delta"` in a chunk.
    :param reason: The finish reason.
    :param created: The Unix time in seconds.
    """
    choice = {"index": 0, part: content, "logprobs": None, "finish_reason": reason}
    return {"id": id, "object": kind, "created": created, "model": model, "choices": [choice]}


def usage_object(usage: Usage) -> dict[str, int]:
    """Return the token counts of a completion."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def error_object(
    message: str, status: int, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return the body of an error response, which is also the data of an error event.

    :param param: The invalid parameter of the request.
    """
    kind = _KINDS.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
