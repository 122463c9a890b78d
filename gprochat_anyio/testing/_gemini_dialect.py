"""The site's end of Gemini's API, for scripted sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gprochat_anyio._wire.admission import Gate, Refusal, read_parts

from ._dialect import EventDialect, json_event, json_response, turns_in_parts
from ._requests import Request, Turn
from ._steps import Refuse, Stop

_TYPES = "type.googleapis.com/google.rpc"
_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class GeminiDialect(EventDialect):
    """Gemini's API: `POST .../models/{model}:streamGenerateContent?alt=sse`."""

    api = "gemini"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._about = {
            "modelVersion": request.path.rpartition("/")[2].partition(":")[0],
            "responseId": f"scripted-{request.number}",
        }

    @staticmethod
    def turns(body: Mapping[str, Any]) -> tuple[Turn, ...]:
        system = body.get("systemInstruction")
        text = read_parts(system) if isinstance(system, dict) else None
        told = () if text is None else (Turn("system", text),)
        return told + turns_in_parts(body.get("contents"))

    @staticmethod
    def secret(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:  # noqa: ARG004
        return headers.get("x-goog-api-key")

    @staticmethod
    def admit(gate: Gate, request: Request, data: bytes) -> None:  # noqa: ARG004
        if not request.password_ok:
            said = "API key not valid. A scripted site's key is its password."
            reason = {"@type": f"{_TYPES}.ErrorInfo", "reason": "API_KEY_INVALID"}
            raise _refusal(said, reason)
        if not request.body:
            raise _refusal("Invalid JSON payload received: it must be an object.")
        contents = request.body.get("contents")
        if not isinstance(contents, list) or not contents:
            raise _refusal("GenerateContentRequest.contents: contents is not specified.")
        for number, content in enumerate(contents):
            _check_content(content, f"contents[{number}]")

    def _piece(self, text: str) -> dict[str, Any]:
        return self._event(text)

    def _finish(self, step: Stop) -> bytes:
        event = self._event("", finishReason=_REASONS.get(step.reason, step.reason))
        if (usage := step.usage) is not None:
            event["usageMetadata"] = {
                "promptTokenCount": usage.input_tokens,
                "candidatesTokenCount": usage.output_tokens,
                "totalTokenCount": usage.input_tokens + usage.output_tokens,
            }
        return json_event(event)

    def _error(self, step: Refuse, message: str) -> dict[str, Any]:
        details = []
        if (wait := step.retry_after) is not None:
            delay = f"{wait:.9f}".rstrip("0").rstrip(".")
            details.append({"@type": f"{_TYPES}.RetryInfo", "retryDelay": f"{delay}s"})
        return _error_object(step.status, message, details, word=step.code)

    def _event(self, text: str, **more: str) -> dict[str, Any]:
        content = {"parts": [{"text": text}], "role": "model"}
        return {"candidates": [{"content": content, **more, "index": 0}], **self._about}


def _check_content(content: object, place: str) -> None:
    if not isinstance(content, dict) or content.get("role", "user") not in ("user", "model"):
        raise _refusal(f"{place}: please use a valid role: user, model.")
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts or not all(isinstance(p, dict) for p in parts):
        raise _refusal(f"{place}.parts must be a list of at least one part.")


def _refusal(message: str, *details: dict[str, str]) -> Refusal:
    return Refusal(json_response(400, _error_object(400, message, details)))


def _error_object(
    status: int, message: str, details: Sequence[dict[str, str]], word: str | None = None
) -> dict[str, Any]:
    error: dict[str, Any] = {
        "code": status,
        "message": message,
        "status": word or _STATUSES.get(status, "UNKNOWN"),
    }
    return {"error": {**error, "details": details} if details else error}
