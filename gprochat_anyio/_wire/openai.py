"""OpenAI's chat completions, as OpenAI, Ollama, llama.cpp, vLLM and many others serve them.

The model's refusals are part of the text; its reasoning and tool calls are not. Only the first
choice is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import msgspec

from gprochat_anyio._errors import InvalidPromptError
from gprochat_anyio._redaction import Hidden, hide_arguments

from .api_wire import ApiWire, ModelPage
from .error_responses import Peer, shown
from .event_replies import UNDECODABLE, EventReplyDecoder
from .json_body import encode_json
from .messages import Message

OPENAI_PEER = Peer("the model's server", "base_url (often it ends with /v1)")
_LONGEST_REASON = 100
"""Maximum length of a finish reason that OpenAI does not define."""

_ROLES = {"user": "user", "model": "assistant"}


class OpenAIWire(ApiWire):
    """The client's end of OpenAI's API.

    :param model: The model's name.
    :param api_key: The API key, if the server requires one.
    :param system: A system message for every request, before the prompt's own.
    :param fields: Additional fields of the body, such as `{"temperature": 0}`. A value of `None`
        omits a field, such as `stream_options`, which a few servers reject.
    :raises ValueError: If a setting is invalid. The message names it, and never shows the key.
    """

    provider = "openai"

    @hide_arguments
    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        system: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            OPENAI_PEER,
            "/chat/completions",
            model=model,
            api_key=api_key,
            key_header=("Authorization", "Bearer "),
            key_setting="api_key (OPENAI_API_KEY)",
            system=system,
            fields=fields,
            default_fields={"stream_options": {"include_usage": True}},
        )

    def encode(self, messages: Sequence[Message]) -> bytes:
        """Return the body of a request."""
        system, turns = self._split(messages)
        said = [{"role": "system", "content": system}] if system else []
        said += [{"role": _ROLES[turn.wire_role], "content": turn.content} for turn in turns]
        body = {**self._fields, "model": self.model, "stream": True, "messages": said}
        return Hidden(encode_json(body))

    def with_fields(self, fields: Mapping[str, Any]) -> OpenAIWire | InvalidPromptError:
        """Return a wire that adds fields to the body of its requests, or the error."""
        if fields.get("model", self.model) != self.model:
            return InvalidPromptError(
                f"the request names another model than the client's, {self.model}; "
                'set the model on the client, or remove "model" from the body'
            )
        wire = copy(self)
        given = {**self._fields, **fields}
        wire._fields = {name: value for name, value in given.items() if value is not None}
        return wire

    def decoder(self, max_size: int | None) -> OpenAIDecoder:
        """Return a new decoder for the body of one reply."""
        return OpenAIDecoder(self._errors, max_size)

    def _models_in(self, value: Any) -> ModelPage | None:
        if isinstance(value, dict) and "data" in value:
            value = value["data"] or []  # Ollama without models sends null
        if not isinstance(value, list):
            return None
        names = [model.get("id") for model in value if isinstance(model, dict)]
        return ModelPage([shown(name) for name in names if isinstance(name, str)])


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None
    index: int = 0


class _Tokens(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int = 0


class _ChunkEvent(msgspec.Struct, gc=False):
    choices: tuple[_Choice, ...] | None = None
    usage: _Tokens | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_ChunkEvent).decode


class OpenAIDecoder(EventReplyDecoder):
    """Incremental decoder of one reply of OpenAI's API."""

    __slots__ = ()

    def _read(self, data: bytes) -> str:
        try:
            event = _decode(data)
        except UNDECODABLE:
            event = _tolerated(self._object_in(data))
        if event.usage is not None:
            self._count(event.usage.prompt_tokens, event.usage.completion_tokens)
        choices = event.choices
        if event.error or choices is None:
            self._look_for_error(data)
            return ""
        for choice in choices:
            if choice.index == 0:
                delta = choice.delta
                text = "" if delta is None else delta.content or delta.refusal or ""
                if choice.finish_reason:
                    self._take_reason(choice.finish_reason, text)
                return text
        return ""

    def _take_reason(self, reason: str, text: str) -> None:
        if reason == "content_filter":
            self._fail(self._errors.of_reply("withheld the reply", code=reason))
        elif reason == "error":
            self._fail(self._errors.of_reply("abandoned the reply", code=reason))
        else:
            self._ended(self._errors.hide_key(reason)[:_LONGEST_REASON], text)


def _tolerated(value: Mapping[str, Any]) -> _ChunkEvent:
    """Return the usable fields of an event, some of which have unexpected types."""
    choices = value.get("choices")
    return _ChunkEvent(
        choices=tuple(_choices_in(choices)) if isinstance(choices, list) else None,
        usage=_tokens_in(value.get("usage")),
        error=value.get("error"),
    )


def _choices_in(values: list[Any]) -> Iterator[_Choice]:
    for value in values:
        if not isinstance(value, dict):
            continue
        reason, index, delta = value.get("finish_reason"), value.get("index"), value.get("delta")
        if not isinstance(delta, dict):
            delta = {}
        yield _Choice(
            delta=_Delta(text_in(delta.get("content")), text_in(delta.get("refusal"))),
            finish_reason=reason if isinstance(reason, str) else None,
            index=index if isinstance(index, int) else 0,
        )


def text_in(content: object) -> str:
    """Return the text of a message's content, which a few servers send as a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(
        text
        for part in parts
        if isinstance(part, dict) and part.get("type", "text") == "text"
        if isinstance(text := part.get("text"), str)
    )


def _tokens_in(usage: object) -> _Tokens | None:
    if not isinstance(usage, dict):
        return None
    given, made = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    return _Tokens(given, made) if isinstance(given, int) and isinstance(made, int) else None
