"""The site's end of OpenAI's chat completions, for scripted sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gprochat_anyio._wire.admission import Gate, Refusal
from gprochat_anyio._wire.openai import text_in
from gprochat_anyio._wire.openai_server import (
    DONE,
    completion_object,
    error_object,
    usage_object,
)
from gprochat_anyio._wire.server_sent_events import encode_event

from ._dialect import EventDialect, json_event, json_response
from ._requests import Request, Turn
from ._steps import Refuse, Stop, chunk

_ROLES = {"assistant": "model", "developer": "system"}
_KNOWN_ROLES = ("assistant", "developer", "function", "system", "tool", "user")


class OpenAIDialect(EventDialect):
    """OpenAI's API: `POST .../chat/completions`, streamed."""

    api = "openai"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._id = f"chatcmpl-{request.number}"
        self._model = request.body.get("model", "scripted")
        options = request.body.get("stream_options")
        self._counts_tokens = isinstance(options, dict) and bool(options.get("include_usage"))

    @staticmethod
    def turns(body: Mapping[str, Any]) -> tuple[Turn, ...]:
        messages = body.get("messages")
        return tuple(
            _turn(message)
            for message in (messages if isinstance(messages, list) else ())
            if isinstance(message, dict)
        )

    @staticmethod
    def secret(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:  # noqa: ARG004
        kind, _, key = headers.get("authorization", "").partition(" ")
        return key.strip() if kind.lower() == "bearer" else None

    @staticmethod
    def admit(gate: Gate, request: Request, data: bytes) -> None:  # noqa: ARG004
        if not request.password_ok:
            said = "Incorrect API key provided. A scripted site's key is its password."
            raise _refusal(401, said, code="invalid_api_key")
        body = request.body
        if not body:
            raise _refusal(400, "The body of the request must be a JSON object.")
        if not isinstance(body.get("model"), str):
            raise _refusal(400, "You must provide a model parameter.", param="model")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            said = "'messages' must be an array of at least one message."
            raise _refusal(400, said, param="messages")
        for number, message in enumerate(messages):
            _check_message(message, f"messages[{number}]")
        if body.get("stream") is not True:
            said = "A scripted site only streams: set 'stream' to true."
            raise _refusal(400, said, param="stream")

    def head(self) -> bytes:
        return super().head() + json_event(self._chunk({"role": "assistant", "content": ""}))

    def _piece(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def _finish(self, step: Stop) -> bytes:
        events = json_event(self._chunk({}, step.reason))
        if step.usage is not None and self._counts_tokens:
            usage = {"choices": [], "usage": usage_object(step.usage)}
            events += json_event({**self._chunk({}), **usage})
        return events + chunk(encode_event(DONE))

    def _error(self, step: Refuse, message: str) -> dict[str, Any]:
        return error_object(message, step.status, code=step.code)

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        return completion_object(
            *("chat.completion.chunk", "delta", delta, reason),
            id=self._id,
            created=0,  # constant, so that runs are reproducible
            model=self._model,
        )


def _turn(message: Mapping[str, Any]) -> Turn:
    role = str(message.get("role"))
    return Turn(_ROLES.get(role, role), text_in(message.get("content")))


def _check_message(message: object, place: str) -> None:
    if not isinstance(message, dict) or message.get("role") not in _KNOWN_ROLES:
        said = f"{place} must be an object with one of the roles {', '.join(_KNOWN_ROLES)}."
        raise _refusal(400, said, param=place)
    if message["role"] != "assistant" and not isinstance(message.get("content"), str | list):
        said = f"{place}.content must be a string or an array of parts."
        raise _refusal(400, said, param=place)


def _refusal(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> Refusal:
    return Refusal(json_response(status, error_object(message, status, param=param, code=code)))
