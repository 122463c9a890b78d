"""The OpenAI endpoint: OpenAI's API for the site's model, below `/v1`.

The site's model replies, regardless of the model that the request names. Optional parameters that a
site does not support (`temperature`, `max_tokens`, ...) are ignored. Parameters that would change
the structure of the reply (`tools`, `n`, ...) are refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from uuid import uuid4

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from gprochat_anyio import InvalidPromptError, Message
from gprochat_anyio._wire.admission import Gate
from gprochat_anyio._wire.json_body import decode_json
from gprochat_anyio._wire.messages import folded, history
from gprochat_anyio._wire.model_api import Model, Turn
from gprochat_anyio._wire.openai_server import error_object

from ._chat_completion import Completion, CompletionRequest, json_response

PREFIX: Final = "/v1"
_ANY_METHOD: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_REFUSED: Final[dict[str, Callable[[Any], bool]]] = {
    "tools": bool,
    "functions": bool,
    "n": lambda n: n not in (None, 1),
    "logprobs": bool,
    "audio": bool,
    "modalities": lambda kinds: kinds not in (None, ["text"]),
    "response_format": lambda wanted: wanted not in (None, {"type": "text"}),
}
"""The refused parameters. Each function returns True for values that are refused."""

_SWITCHES: Final = {"tools": "tool_choice", "functions": "function_call"}
"""The parameters that disable another parameter if they are `"none"`."""


class _BadRequestError(Exception):
    """An invalid request.

    :param param: The name of the invalid parameter.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def openai_routes(model: Model, gate: Gate, name: str, *, takes_system: bool) -> list[Route]:
    """Return the routes of the API.

    :param gate: Its passwords are the API keys. Without passwords, its secret key is.
    :param name: The model's name.
    :param takes_system: True if the model accepts a system text as a turn of its own.
    """
    made = int(time.time())
    card = {"id": name, "object": "model", "created": made, "owned_by": "gprochat"}

    async def complete(request: Request) -> ASGIApp:
        try:
            parsed = await _read(request, takes_system=takes_system)
        except _BadRequestError as error:
            body = error_object(str(error), 400, param=error.param, code=error.code)
            return json_response(400, body)
        return Completion(model, parsed, name=name, id=f"chatcmpl-{uuid4().hex}")

    async def models(request: Request) -> ASGIApp:  # noqa: ARG001
        return json_response(200, {"object": "list", "data": [card]})

    async def one_model(request: Request) -> ASGIApp:
        if request.path_params["id"] == name:
            return json_response(200, card)
        said = f"The only model here is {name!r}."
        return json_response(404, error_object(said, 404, param="model", code="model_not_found"))

    async def unknown(request: Request) -> ASGIApp:
        said = f"No {request.method} endpoint at this URL; see /v1/models and /v1/chat/completions."
        return json_response(404, error_object(said, 404, code="unknown_url"))

    guarded = partial(_guarded, gate)
    return [
        Route(f"{PREFIX}/chat/completions", guarded(complete), methods=["POST"]),
        Route(f"{PREFIX}/models", guarded(models), methods=["GET"]),
        Route(f"{PREFIX}/models/{{id:path}}", guarded(one_model), methods=["GET"]),
        Route(f"{PREFIX}/{{path:path}}", guarded(unknown), methods=_ANY_METHOD),
    ]


def _guarded(gate: Gate, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Return the endpoint with a check of the API key, which precedes reading the body."""

    async def check(request: Request) -> Any:
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if gate.opens(key.strip() if kind.lower() == "bearer" else ""):
            return await endpoint(request)
        said = "Wrong API key: give the site's password as the API key (Authorization: Bearer ...)."
        response = json_response(401, error_object(said, 401, code="invalid_api_key"))
        response.headers["www-authenticate"] = "Bearer"
        return response

    return check


async def _read(request: Request, *, takes_system: bool) -> CompletionRequest:
    """Parse a request.

    :raises _BadRequestError: If it is invalid, or not supported.
    """
    # Browsers do not send this type for pages of other origins without a preflight request.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _BadRequestError("The Content-Type must be application/json.")
    try:
        body = decode_json(await request.body())
    except ValueError:
        raise _BadRequestError("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise _BadRequestError("The body is not a JSON object.")
    for parameter, asks in _REFUSED.items():
        if asks(body.get(parameter)) and body.get(_SWITCHES.get(parameter)) != "none":
            said = f"A GPROChat site replies with one text, so {parameter!r} is not supported."
            raise _BadRequestError(said, parameter, "unsupported_parameter")
    streamed = body.get("stream")
    if not isinstance(streamed, bool | None):
        raise _BadRequestError("'stream' must be true or false.", "stream")
    options = body.get("stream_options")
    if not isinstance(options, dict | None):
        raise _BadRequestError("'stream_options' must be an object.", "stream_options")
    return CompletionRequest(
        _turns(body.get("messages"), takes_system=takes_system),
        streamed=bool(streamed),
        counts_tokens=bool((options or {}).get("include_usage")),
    )


def _turns(messages: Any, *, takes_system: bool) -> tuple[Turn, ...]:
    if not isinstance(messages, list) or not messages:
        raise _BadRequestError("'messages' must be a list of at least one message.", "messages")
    *earlier, last = messages
    try:
        validated = history([*(m for m in earlier if not _is_blank(m)), last])
    except InvalidPromptError as error:
        refused = str(error)
    else:
        return tuple(map(_turn, validated if takes_system else folded(validated)))
    raise _BadRequestError(refused, "messages")


def _is_blank(message: Any) -> bool:
    """Return True if a message has no text, such as one that only calls tools.

    OpenAI's API accepts such messages.
    """
    if not isinstance(message, dict):
        return False
    if "content" not in message:
        return message.get("role") == "assistant"
    content = message["content"]
    if isinstance(content, list):
        return all(isinstance(p, dict) and _is_blank_text(p.get("text")) for p in content)
    return content is None or _is_blank_text(content)


def _is_blank_text(text: Any) -> bool:
    return isinstance(text, str) and not text.strip()


def _turn(message: Message) -> Turn:
    return Turn(message.wire_role, message.content)
