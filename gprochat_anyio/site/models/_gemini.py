"""The Gemini API: `POST models/{model}:streamGenerateContent?alt=sse`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from gprochat_anyio import Timeouts
from gprochat_anyio._wire.model_api import spoken
from gprochat_anyio.site import Finish, ModelError, Turn

from ._api import Api
from ._api_answers import shown

GEMINI_URL: Final = "https://generativelanguage.googleapis.com/v1beta"
GEMINI_MODEL: Final = "gemini-flash-latest"
"""An alias, of the newest of its kind."""

_FILTERED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
    }
)


class GeminiModel:
    """Google's Gemini, by its REST API. Its thoughts, where it gives any, are left out.

    :param api_key: sent in a header; it never shows in a `repr`, a log or an error
    :param model: the model's name
    :param base_url: of the API, its version included
    :param system: a system instruction for every conversation
    :param fields: more fields of the request, such as `{"generationConfig": {...}}`
    :param timeouts: by default 10 s to connect, 300 s to the first text, 120 s between texts
    :param proxy: the URL of a proxy, in place of the environment's
    :raises ValueError: that names the argument, for a setting that can not be
    """

    def __init__(
        self,
        api_key: str,
        model: str = GEMINI_MODEL,
        *,
        base_url: str = GEMINI_URL,
        system: str | None = None,
        fields: Mapping[str, Any] | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
    ) -> None:
        if not api_key:
            raise ValueError("api_key is empty; set GEMINI_API_KEY to a key of aistudio.google.com")
        if not model:
            raise ValueError("model is empty; name one of the API's models")
        self._api = Api(
            "the Gemini API",
            base_url,
            api_key=api_key,
            key_header=("x-goog-api-key", api_key),
            key_variable="GEMINI_API_KEY",
            timeouts=timeouts,
            proxy=proxy,
        )
        self.name = model.removeprefix("models/")
        """The model's name."""
        self._path = f"/models/{quote(self.name, safe='')}:streamGenerateContent?alt=sse"
        self._fields = dict(fields or {})
        if system:
            self._fields["systemInstruction"] = {"parts": [{"text": system}]}

    def __repr__(self) -> str:
        return f"<GeminiModel {self.name} at {self._api.url}>"

    def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        """The answer to a history; raises `ModelError` as it is iterated."""
        contents = [{"role": t.role, "parts": [{"text": t.text}]} for t in spoken(turns)]
        return self._api.texts(self._path, {**self._fields, "contents": contents}, GeminiReader())


class GeminiReader:
    """Reads the events of an answer: `GenerateContentResponse` each, the last with the reason.

    The end of the body is the end of the answer; nothing marks it.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        self._message: object = None
        self._said = False

    def feed(self, event: dict[str, Any]) -> str:
        feedback = event.get("promptFeedback")
        if isinstance(feedback, dict) and (blocked := feedback.get("blockReason")):
            raise ModelError(
                f"The Gemini API blocked the prompt{shown(blocked)}",
                status=400,
                code="content_filter",
            )
        candidates = event.get("candidates")
        candidate = candidates[0] if isinstance(candidates, list) and candidates else None
        if not isinstance(candidate, dict):
            return ""
        reason = candidate.get("finishReason")
        if isinstance(reason, str) and reason != "FINISH_REASON_UNSPECIFIED":
            self._reason, self._message = reason, candidate.get("finishMessage")
        text = "".join(_texts(candidate.get("content")))
        self._said = self._said or bool(text)
        return text

    def finish(self) -> Finish:
        match self._reason:
            case "STOP":
                return Finish("stop")
            case "MAX_TOKENS" if self._said:
                return Finish("length")
            case "MAX_TOKENS":
                raise ModelError("The model reached its limit of tokens before it said anything.")
            case None:
                raise ModelError("The model's answer broke off: it came without a finish reason.")
            case reason if reason in _FILTERED:
                why = f"The Gemini API held the answer back: {reason}{shown(self._message)}"
                raise ModelError(why, status=400, code="content_filter")
            case reason:
                raise ModelError(f"The model gave up{shown(reason)}{shown(self._message)}")


def _texts(content: Any) -> list[str]:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        return []
    spoken_parts = (p for p in parts if isinstance(p, dict) and p.get("thought") is not True)
    return [text for p in spoken_parts if isinstance(text := p.get("text"), str)]
