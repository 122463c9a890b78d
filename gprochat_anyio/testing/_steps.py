"""Scripts, which are sequences of steps for a scripted site."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import isfinite
from typing import TypeAlias

from gprochat_anyio import Usage
from gprochat_anyio._wire.admission import WireResponse, error_response
from gprochat_anyio._wire.gprochat import REPLY_CONTENT_TYPE


def reply_head(content_type: str) -> bytes:
    """Return the head of a reply."""
    return (
        f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n"
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


REPLY_HEAD = reply_head(REPLY_CONTENT_TYPE)
LAST_CHUNK = b"0\r\n\r\n"


class Step:
    """Base class of the steps."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Say(Step):
    """A piece of the reply, sent as one HTTP chunk that the client receives in one read.

    Other APIs than GPROChat's send it as one event, and a partial character together with its rest.

    :param text: The text. Use bytes for partial characters. An empty first text sends only the
        response's head.
    """

    text: str | bytes

    def __post_init__(self) -> None:
        if not isinstance(self.text, str | bytes):
            raise ValueError(f"Say requires a str or bytes, not {type(self.text).__name__}")

    @property
    def encoded(self) -> bytes:
        """The text in UTF-8."""
        return self.text.encode() if isinstance(self.text, str) else self.text

    @property
    def data(self) -> bytes:
        """The chunk of a GPROChat site. Empty for an empty text, whose chunk would end the
        reply."""
        data = self.encoded
        return chunk(data) if data else b""


@dataclass(frozen=True, slots=True)
class Pause(Step):
    """A pause of some seconds, by the event loop's clock, which may be virtual.

    It begins at the end of the previous step, or at the request, even if the client does not read.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not isinstance(self.seconds, int | float) or not 0 <= self.seconds < float("inf"):
            raise ValueError("Pause requires seconds, at least 0; use Hang() for an endless pause")


@dataclass(frozen=True, slots=True)
class Hang(Step):
    """Silence until the client disconnects."""


@dataclass(frozen=True, slots=True)
class Drop(Step):
    """The end of the connection. Data sent before it can still be read.

    :param reset: Reset the connection as a crashed peer does (RST), instead of closing it in an
        orderly way (FIN).
    """

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Refuse(Step):
    """An error response of the request's API, instead of a reply. Only pauses may precede it.

    :param status: The HTTP status, such as 429 for too many requests or 401 for a wrong key or
        password.
    :param message: The error message. `None` for a response without a body.
    :param retry_after: The `Retry-After`, or Gemini's `RetryInfo`, in seconds.
    :param code: The error's `code`, which sites set for errors of the model, or Gemini's `status`.
    """

    status: int
    message: str | None = None
    retry_after: float | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.status, int) or not 300 <= self.status < 600:
            raise ValueError("Refuse requires the HTTP status of an error, from 300 to 599")
        if self.retry_after is not None and not isfinite(self.retry_after):
            raise ValueError("retry_after must be a finite number of seconds")

    @property
    def data(self) -> bytes:
        """The response of a GPROChat site."""
        if self.message is None:
            response = WireResponse(self.status)
        else:
            response = error_response(self.status, self.message, code=self.code)
        return encode_response(response, retry_after=self.retry_after)


@dataclass(frozen=True, slots=True)
class Fail(Step):
    """A failure of the site's model.

    Before any `Say`, it is an error response with status 500. After one, it is the marker with
    which Node deployments end a failed reply or, in other APIs, an error event.

    :param message: The error message, which the marker cannot express.
    """

    message: str = "the model failed"


@dataclass(frozen=True, slots=True)
class Stop(Step):
    """The end of a complete reply. Without this step, a script ends with the reason `"stop"`.

    GPROChat's API cannot express the reason or the usage.

    :param reason: The finish reason: `"stop"`, `"length"`, `"content_filter"`, or another of the
        API's names.
    :param usage: The token counts. OpenAI's API sends them only if the request asks for them.
    """

    reason: str = "stop"
    usage: Usage | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason:
            raise ValueError("Stop requires a finish reason, such as 'stop' or 'length'")
        if not isinstance(self.usage, Usage | None):
            raise ValueError(f"usage must be a Usage, not {type(self.usage).__name__}")


@dataclass(frozen=True, slots=True)
class Raw(Step):
    """Raw bytes, for malformed responses or responses of another API.

    The site adds neither a head nor an end to a script with a `Raw` step, and leaves the connection
    open at the script's end. Add `Drop()` to end the connection.
    """

    data: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes):
            raise ValueError(f"Raw requires bytes, not {type(self.data).__name__}")


Hold: TypeAlias = Callable[[], Awaitable[object]]
"""An async callable as a step, such as the `wait` method of an event. It blocks the script until it
returns. The task that reads the reply calls it, and calls it again if a read was cancelled."""
Script: TypeAlias = str | Step | Iterable[Step | Hold]
"""The steps of a reply, which is complete after the last one. A str is a reply of one piece."""


def steps_of(script: Script) -> Iterable[Step | Hold]:
    """Return the steps of a script.

    :raises ValueError: If it is not a script.
    """
    if isinstance(script, str):
        return (Say(script),) if script else ()
    if isinstance(script, Step):
        return (script,)
    if not isinstance(script, Iterable):
        raise ValueError(
            "a script must be a str or a sequence of steps such as Say, not "
            f"{type(script).__name__}"
        )
    return script


def checked_steps(script: Script) -> Sequence[Step | Hold]:
    """Validate a script, and return its steps for repeated use.

    :raises ValueError: If it is not a script, or has steps after its end.
    """
    if isinstance(script, Iterable) and not isinstance(script, Sequence):
        raise ValueError(
            "a script must be a sequence, which can be replayed; for an iterator or an infinite "
            "script, use a function that returns it for each request"
        )
    steps = tuple(steps_of(script))
    for number, step in enumerate(steps):
        if not isinstance(step, Step) and not callable(step):
            raise ValueError(
                f"step {number + 1} of a script is a {type(step).__name__}, not a step"
            )
        if isinstance(step, Refuse) and any(isinstance(s, Say | Raw) for s in steps[:number]):
            raise ValueError("Refuse is a complete response: it cannot follow a Say or a Raw")
        if isinstance(step, Hang | Drop | Refuse | Fail | Stop) and number < len(steps) - 1:
            raise ValueError(f"{type(step).__name__} ends a script; nothing can follow it")
    return steps


def chunk(data: bytes) -> bytes:
    """Encode an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def encode_response(response: WireResponse, *, retry_after: float | None = None) -> bytes:
    """Encode a response of the wire."""
    fields = {}
    if response.content_type is not None:
        fields["content-type"] = response.content_type
    if retry_after is not None:
        fields["Retry-After"] = f"{retry_after:.15g}"  # without an exponent
    return answer(response.status, response.body, fields)


def answer(status: int, body: bytes, fields: dict[str, str]) -> bytes:
    """Encode a complete response with a content length."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {text}" for name, text in fields.items())]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
