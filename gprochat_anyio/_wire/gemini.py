"""Google's Gemini API: `POST models/{model}:streamGenerateContent?alt=sse`.

The model's thoughts are not part of the text. Only the first candidate is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from gprochat_anyio._redaction import Hidden, hide_arguments

from .api_errors import ApiErrors
from .api_wire import ApiWire, ModelPage
from .error_responses import Peer, shown
from .event_replies import UNDECODABLE, EventReplyDecoder
from .json_body import encode_json
from .messages import Message
from .server_sent_events import Event

GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta"
GEMINI_MODEL = "gemini-flash-latest"
"""An alias of the newest Flash model."""

GEMINI_PEER = Peer("the Gemini API", "base_url")
_METHOD = "generateContent"
"""The method that every chat model supports."""
_KEY_SETTING = "api_key (GEMINI_API_KEY)"

_FINISH_REASONS = {"STOP": "stop", "MAX_TOKENS": "length"}
_FILTERED = frozenset(
    {
        "BLOCKLIST",
        "IMAGE_SAFETY",
        "LANGUAGE",
        "PROHIBITED_CONTENT",
        "RECITATION",
        "SAFETY",
        "SPII",
    }
)


class GeminiWire(ApiWire):
    """The client's end of the Gemini API.

    :param model: The model's name, with or without `models/`.
    :param system: A system message for every request, before the prompt's own.
    :param fields: Additional fields of the body, such as
        `{"generationConfig": {"temperature": 0}}`.
    :raises ValueError: If a setting is invalid. The message names it, and never shows the key.
    """

    provider = "gcp.gemini"

    @hide_arguments
    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        system: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        if not api_key:
            raise ValueError(f"{_KEY_SETTING} is empty; aistudio.google.com has keys")
        if isinstance(model, str):
            model = model.removeprefix("models/")
        super().__init__(
            GEMINI_PEER,
            f"/models/{quote(str(model), safe='')}:streamGenerateContent?alt=sse",
            model=model,
            api_key=api_key,
            key_header=("x-goog-api-key", ""),
            key_setting=_KEY_SETTING,
            system=system,
            fields=fields,
            default_fields={},
        )

    def encode(self, messages: Sequence[Message]) -> bytes:
        """Return the body of a request."""
        system, turns = self._split(messages)
        body = dict(self._fields)
        if system:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        body["contents"] = [
            {"role": turn.wire_role, "parts": [{"text": turn.content}]} for turn in turns
        ]
        return Hidden(encode_json(body))

    def decoder(self, max_size: int | None) -> GeminiDecoder:
        """Return a new decoder for the body of one reply."""
        return GeminiDecoder(self._errors, max_size)

    def models_path(self, token: str | None) -> str:
        """Return the path of a page of the list of models."""
        return "/models?pageSize=1000" + (f"&pageToken={quote(token, safe='')}" if token else "")

    def _models_in(self, value: Any) -> ModelPage | None:
        if not isinstance(value, dict) or not isinstance(models := value.get("models"), list):
            return None
        names = [
            shown(name.removeprefix("models/"))
            for model in map(_object, models)
            if (name := _word(model.get("name"))) is not None
            and isinstance(methods := model.get("supportedGenerationMethods"), list)
            and _METHOD in methods
        ]
        return ModelPage(names, _word(value.get("nextPageToken")) or None)


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    thought: bool | None = None


class _Content(msgspec.Struct, gc=False):
    parts: tuple[_Part, ...] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int = 0


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class _TokenCounts(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: int
    candidates_token_count: int = 0
    thoughts_token_count: int = 0


class _ResponseEvent(msgspec.Struct, gc=False, rename="camel"):
    candidates: tuple[_Candidate, ...] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _TokenCounts | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_ResponseEvent).decode


class GeminiDecoder(EventReplyDecoder):
    """Incremental decoder of one reply of the Gemini API."""

    __slots__ = ("_tokens",)

    def __init__(self, errors: ApiErrors, max_size: int | None) -> None:
        super().__init__(errors, max_size)
        self._tokens: _TokenCounts | None = None

    def _take(self, events: list[Event]) -> str:
        text = super()._take(events)
        tokens = self._tokens
        if tokens is not None:  # once for all events, as each has the total so far
            made = tokens.candidates_token_count + tokens.thoughts_token_count
            self._count(tokens.prompt_token_count, made)
        return text

    def _read(self, data: bytes) -> str:
        try:
            event = _decode(data)
        except UNDECODABLE:
            event = _tolerated(self._object_in(data))
        if event.usage_metadata is not None:
            self._tokens = event.usage_metadata
        feedback, candidates = event.prompt_feedback, event.candidates
        if feedback is not None and feedback.block_reason:
            said = feedback.block_reason_message or feedback.block_reason
            error = self._errors.of_reply("blocked the prompt", code="content_filter", message=said)
            self._fail(error)
            return ""
        if event.error or candidates is None:
            self._look_for_error(data)
            return ""
        for candidate in candidates:
            if candidate.index == 0:
                content = candidate.content
                parts = content.parts if content is not None else None
                text = ""
                for part in parts or ():
                    if part.text and not part.thought:
                        text += part.text
                if candidate.finish_reason:
                    self._take_reason(candidate.finish_reason, candidate.finish_message, text)
                return text
        return ""

    def _take_reason(self, reason: str, message: str | None, text: str) -> None:
        if reason in _FINISH_REASONS:
            self._ended(_FINISH_REASONS[reason], text)
        elif reason in _FILTERED:
            what = f"withheld the reply ({reason})"
            self._fail(self._errors.of_reply(what, code="content_filter", message=message))
        elif reason != "FINISH_REASON_UNSPECIFIED":
            self._fail(self._errors.of_reply("abandoned the reply", code=reason, message=message))


def _tolerated(value: Mapping[str, Any]) -> _ResponseEvent:
    """Return the usable fields of an event, some of which have unexpected types."""
    candidates = value.get("candidates")
    feedback = _object(value.get("promptFeedback"))
    return _ResponseEvent(
        candidates=tuple(_candidates_in(candidates)) if isinstance(candidates, list) else None,
        prompt_feedback=_Feedback(
            _word(feedback.get("blockReason")), _word(feedback.get("blockReasonMessage"))
        ),
        usage_metadata=_tokens_in(_object(value.get("usageMetadata"))),
        error=value.get("error"),
    )


def _candidates_in(values: list[Any]) -> Iterator[_Candidate]:
    for value in map(_object, values):
        index, parts = value.get("index"), _object(value.get("content")).get("parts")
        yield _Candidate(
            content=_Content(tuple(_parts_in(parts)) if isinstance(parts, list) else None),
            finish_reason=_word(value.get("finishReason")),
            finish_message=_word(value.get("finishMessage")),
            index=index if isinstance(index, int) else 0,
        )


def _parts_in(values: list[Any]) -> Iterator[_Part]:
    for value in map(_object, values):
        yield _Part(_word(value.get("text")), bool(value.get("thought")))


def _tokens_in(usage: Mapping[str, Any]) -> _TokenCounts | None:
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    given, made, thought = (usage.get(name) for name in names)
    if not isinstance(given, int):
        return None
    made, thought = (count if isinstance(count, int) else 0 for count in (made, thought))
    return _TokenCounts(given, made, thought)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None
