"""Responses of model APIs, byte for byte as their documentation and their servers have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gprochat_anyio import AuthenticationError, RateLimitError, SiteError

EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class ApiTranscript:
    """One response of an API, and the client's result.

    :param usage: The numbers of input and output tokens.
    :param error: The error's exact type, if the response is an error.
    """

    name: str
    api: Literal["openai", "gemini"]
    body: bytes
    text: str = ""
    finish_reason: str | None = None
    usage: tuple[int, int] | None = None
    error: type[SiteError] | None = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = tuple(EVENT_STREAM.items())

    def __str__(self) -> str:
        return f"{self.api}: {self.name}"

    @property
    def fields(self) -> dict[str, str]:
        """The header fields, by lower-case name."""
        return {name.lower(): value for name, value in self.headers}

    def response(self, *, chunk_size: int = 1 << 20) -> bytes:
        """Return the complete HTTP response, chunked."""
        lines = [f"HTTP/1.1 {self.status} Status", *(f"{n}: {v}" for n, v in self.headers)]
        head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
        parts = [self.body[i : i + chunk_size] for i in range(0, len(self.body), chunk_size)]
        return head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


_OPENAI_CHUNK = (
    b'data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk",'
    b'"created":1741569952,"model":"gpt-4.1-2025-04-14","service_tier":"default",'
    b'"system_fingerprint":"fp_44709d6fcb",%b}\n\n'
)
_OLLAMA_CHUNK = (
    b'data: {"id":"chatcmpl-394","object":"chat.completion.chunk","created":1763841600,'
    b'"model":"llama3.2","system_fingerprint":"fp_ollama","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"%b"},"finish_reason":%b}]}\n\n'
)
_VLLM_CHUNK = (
    b'data: {"id":"chatcmpl-2f1c","object":"chat.completion.chunk","created":1763841601,'
    b'"model":"Qwen/Qwen3-8B","choices":[%b]%b}\n\n'
)
_GEMINI_EVENT = (
    b'data: {"candidates": [{%b}],"usageMetadata": {"promptTokenCount": 4,%b'
    b'"promptTokensDetails": [{"modality": "TEXT","tokenCount": 4}]},'
    b'"modelVersion": "gemini-2.5-flash","responseId": "mNmZaPy1D5"}\r\n\r\n'
)


def _part(text: str, more: bytes = b"") -> bytes:
    return b'"content": {"parts": [{"text": "%b"%b}],"role": "model"}' % (text.encode(), more)


OPENAI_REPLIES = [
    ApiTranscript(
        "OpenAI, with usage",
        "openai",
        b"".join(
            _OPENAI_CHUNK % rest
            for rest in (
                (
                    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
                    b'"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"pXn1"'
                ),
                (
                    b'"choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,'
                    b'"finish_reason":null}],"usage":null,"obfuscation":"6cM"'
                ),
                '"choices":[{"index":0,"delta":{"content":", café \\ud83d\\ude42"},'
                '"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":""'.encode(),
                (
                    b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],'
                    b'"usage":null,"obfuscation":"Zq"'
                ),
                (
                    b'"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,'
                    b'"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
                    b'"completion_tokens_details":{"reasoning_tokens":0}},"obfuscation":"u3F1"'
                ),
            )
        )
        + b"data: [DONE]\n\n",
        text="Hello, café 🙂",
        finish_reason="stop",
        usage=(19, 10),
    ),
    ApiTranscript(
        "Ollama, at the limit of tokens",
        "openai",
        _OLLAMA_CHUNK % ("Grüß".encode(), b"null")
        + _OLLAMA_CHUNK % (b" dich", b"null")
        + _OLLAMA_CHUNK % (b"", b'"length"')
        + b"data: [DONE]\n\n",
        text="Grüß dich",
        finish_reason="length",
    ),
    ApiTranscript(
        "vLLM, with reasoning and continuous usage",
        "openai",
        b"".join(
            _VLLM_CHUNK % parts
            for parts in (
                (b'{"index":0,"delta":{"role":"assistant","content":""}}', b',"usage":null'),
                (
                    b'{"index":0,"delta":{"reasoning_content":"Hm."},"finish_reason":null}',
                    b',"usage":{"prompt_tokens":9,"total_tokens":11,"completion_tokens":2}',
                ),
                (
                    b'{"index":0,"delta":{"content":"Yes."},"finish_reason":null}',
                    b',"usage":{"prompt_tokens":9,"total_tokens":13,"completion_tokens":4}',
                ),
                (
                    b'{"index":0,"delta":{"content":""},"finish_reason":"stop","stop_reason":null}',
                    b',"usage":{"prompt_tokens":9,"total_tokens":14,"completion_tokens":5}',
                ),
            )
        )
        + b"data: [DONE]\n\n",
        text="Yes.",
        finish_reason="stop",
        usage=(9, 5),
    ),
    ApiTranscript(
        "a router, with comments",
        "openai",
        b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"
        b'data: {"id":"gen-1763","provider":"Any","model":"a/b","object":"chat.completion.chunk",'
        b'"created":1763841602,"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},'
        b'"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}\n\n'
        b'data: {"id":"gen-1763","provider":"Any","model":"a/b","object":"chat.completion.chunk",'
        b'"created":1763841602,"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
        b'"finish_reason":"stop","native_finish_reason":"end_turn","logprobs":null}]}\n\n'
        b"data: [DONE]\n\n",
        text="Hi",
        finish_reason="stop",
    ),
]

GEMINI_REPLIES = [
    ApiTranscript(
        "a reply",
        "gemini",
        _GEMINI_EVENT
        % (_part("Hel") + b',"index": 0', b'"candidatesTokenCount": 1,"totalTokenCount": 5,')
        + _GEMINI_EVENT
        % (_part("lo, 世界") + b',"index": 0', b'"candidatesTokenCount": 4,"totalTokenCount": 8,')
        + _GEMINI_EVENT
        % (
            _part(" 🙂") + b',"finishReason": "STOP","index": 0',
            b'"candidatesTokenCount": 6,"totalTokenCount": 10,',
        ),
        text="Hello, 世界 🙂",
        finish_reason="stop",
        usage=(4, 6),
    ),
    ApiTranscript(
        "thoughts, and the limit of tokens",
        "gemini",
        _GEMINI_EVENT
        % (
            _part("**Pondering**\\n\\n", b',"thought": true') + b',"index": 0',
            b'"totalTokenCount": 30,"thoughtsTokenCount": 26,',
        )
        + _GEMINI_EVENT
        % (
            _part("So", b',"thoughtSignature": "EjQKMgEM"')
            + b',"finishReason": "MAX_TOKENS","index": 0',
            b'"candidatesTokenCount": 1,"totalTokenCount": 31,"thoughtsTokenCount": 26,',
        ),
        text="So",
        finish_reason="length",
        usage=(4, 27),
    ),
    ApiTranscript(
        "a reply that is held back",
        "gemini",
        _GEMINI_EVENT % (_part("So far") + b',"index": 0', b'"totalTokenCount": 5,')
        + _GEMINI_EVENT
        % (
            (
                b'"finishReason": "SAFETY","index": 0,"safetyRatings": [{"category": '
                b'"HARM_CATEGORY_DANGEROUS_CONTENT","probability": "HIGH","blocked": true}]'
            ),
            b'"totalTokenCount": 5,',
        ),
        text="So far",
        usage=(4, 0),
        error=SiteError,
    ),
    ApiTranscript(
        "a blocked prompt",
        "gemini",
        b'data: {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},"usageMetadata": '
        b'{"promptTokenCount": 8,"totalTokenCount": 8},"modelVersion": "gemini-2.5-flash"}\r\n\r\n',
        usage=(8, 0),
        error=SiteError,
    ),
]

OPENAI_ERRORS = [
    ApiTranscript(
        "a wrong key",
        "openai",
        b'{\n    "error": {\n        "message": "Incorrect API key provided: sk-a-mad***-key. '
        b'You can find your API key at https://platform.openai.com/account/api-keys.",\n'
        b'        "type": "invalid_request_error",\n        "param": null,\n'
        b'        "code": "invalid_api_key"\n    }\n}\n',
        status=401,
        headers=tuple(JSON.items()),
        error=AuthenticationError,
    ),
    ApiTranscript(
        "Ollama without the model",
        "openai",
        b'{"error":{"message":"model \\"llama3.2\\" not found, try pulling it first",'
        b'"type":"api_error","param":null,"code":null}}\n',
        status=404,
        headers=tuple(JSON.items()),
        error=SiteError,
    ),
    ApiTranscript(
        "too many requests",
        "openai",
        b'{"error":{"message":"Rate limit reached for gpt-4.1 on requests per min. Please try '
        b'again in 20s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}',
        status=429,
        headers=(*JSON.items(), ("Retry-After", "20")),
        error=RateLimitError,
    ),
]

GEMINI_ERRORS = [
    ApiTranscript(
        "a wrong key",
        "gemini",
        b'{\n  "error": {\n    "code": 400,\n    "message": "API key not valid. Please pass a '
        b'valid API key.",\n    "status": "INVALID_ARGUMENT",\n    "details": [\n      {\n'
        b'        "@type": "type.googleapis.com/google.rpc.ErrorInfo",\n'
        b'        "reason": "API_KEY_INVALID",\n        "domain": "googleapis.com"\n      }\n'
        b"    ]\n  }\n}\n",
        status=400,
        headers=tuple(JSON.items()),
        error=AuthenticationError,
    ),
    ApiTranscript(
        "an exceeded quota",
        "gemini",
        b'[{\n  "error": {\n    "code": 429,\n    "message": "You exceeded your current quota.'
        b'\\n* Quota exceeded for metric: generate_requests",\n'
        b'    "status": "RESOURCE_EXHAUSTED",\n    "details": [\n      {\n'
        b'        "@type": "type.googleapis.com/google.rpc.QuotaFailure"\n      },\n      {\n'
        b'        "@type": "type.googleapis.com/google.rpc.RetryInfo",\n'
        b'        "retryDelay": "39.5s"\n      }\n    ]\n  }\n}\n]\n',
        status=429,
        headers=tuple(JSON.items()),
        error=RateLimitError,
    ),
    ApiTranscript(
        "an unknown model",
        "gemini",
        b'{\n  "error": {\n    "code": 404,\n    "message": "models/none is not found for API '
        b'version v1beta.",\n    "status": "NOT_FOUND"\n  }\n}\n',
        status=404,
        headers=tuple(JSON.items()),
        error=SiteError,
    ),
]

REPLIES = OPENAI_REPLIES + GEMINI_REPLIES
ERRORS = OPENAI_ERRORS + GEMINI_ERRORS
