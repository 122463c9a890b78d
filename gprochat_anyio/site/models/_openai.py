"""OpenAI's chat completions, as OpenAI, Ollama, llama.cpp, vLLM and many others serve them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from gprochat_anyio import Timeouts
from gprochat_anyio._wire.model_api import spoken
from gprochat_anyio.site import Finish, ModelError, Turn

from ._api import Api


class OpenAIModel:
    """A model behind any server that speaks OpenAI's API.

    Reasoning that a server streams beside the answer is left out.

    :param base_url: of the API, with its `/v1`: `"http://127.0.0.1:11434/v1"` is Ollama's
    :param model: the model's name
    :param api_key: if the server wants one; it never shows in a `repr`, a log or an error
    :param system: a system message for every conversation
    :param fields: more fields of the request, such as `{"temperature": 0}`
    :param timeouts: by default 10 s to connect, 300 s to the first text, 120 s between texts
    :param proxy: the URL of a proxy, in place of the environment's
    :raises ValueError: that names the argument, for a setting that can not be
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        system: str | None = None,
        fields: Mapping[str, Any] | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
    ) -> None:
        if not model:
            raise ValueError("model is empty; name one of the server's models")
        self._api = Api(
            "the model's server",
            base_url,
            api_key=api_key,
            key_header=("Authorization", f"Bearer {api_key}") if api_key else None,
            key_variable="OPENAI_API_KEY",
            timeouts=timeouts,
            proxy=proxy,
        )
        self.name = model
        """The model's name."""
        self._system = [{"role": "system", "content": system}] if system else []
        self._fields = {**(fields or {}), "model": model, "stream": True}

    def __repr__(self) -> str:
        return f"<OpenAIModel {self.name} at {self._api.url}>"

    def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        """The answer to a history; raises `ModelError` as it is iterated."""
        roles = {"user": "user", "model": "assistant"}
        said = [{"role": roles[t.role], "content": t.text} for t in spoken(turns)]
        body = {**self._fields, "messages": [*self._system, *said]}
        return self._api.texts("/chat/completions", body, OpenAIReader())


class OpenAIReader:
    """Reads the events of an answer: chunks with a delta, one with the reason, `[DONE]`.

    Only a reason makes an answer complete: old versions of llama.cpp send `[DONE]` behind an
    error that is no event.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        self._said = False

    def feed(self, event: dict[str, Any]) -> str:
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return ""  # such as the chunk with the usage
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._reason = reason
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        if not isinstance(text, str):
            return ""
        self._said = self._said or bool(text)
        return text

    def finish(self) -> Finish:
        match self._reason:
            case None:
                raise ModelError("The model's answer broke off: it came without a finish reason.")
            case "content_filter":
                raise ModelError(
                    "The model's server held the answer back: content_filter",
                    status=400,
                    code="content_filter",
                )
            case "error":
                raise ModelError("The model gave up: error")
            case "length" if not self._said:
                raise ModelError("The model reached its limit of tokens before it said anything.")
            case "length":
                return Finish("length")
            case _:
                return Finish("stop")
