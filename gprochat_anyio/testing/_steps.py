"""What a scripted site does for a request: a script is a sequence of steps."""

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
    """Base of the steps."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Say(Step):
    """Send a piece of the reply, as one HTTP chunk and for one read of the client's.

    Other APIs than GPROChat's send it as one event, and half of a character with its other half.

    :param text: bytes are for what is no whole text, such as half of a character; an empty
        one at the start sends the answer's head alone
    """

    text: str | bytes

    def __post_init__(self) -> None:
        if not isinstance(self.text, str | bytes):
            raise ValueError(f"Say takes a str or bytes, not {type(self.text).__name__}")

    @property
    def encoded(self) -> bytes:
        """The text in UTF-8."""
        return self.text.encode() if isinstance(self.text, str) else self.text

    @property
    def data(self) -> bytes:
        """The chunk of a GPROChat site; nothing for an empty text, whose chunk would end the
        reply."""
        data = self.encoded
        return chunk(data) if data else b""


@dataclass(frozen=True, slots=True)
class Pause(Step):
    """Send nothing for so many seconds of the event loop's clock, which may be a virtual one.

    They count from the step before, or from the request, whether or not the client reads.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not isinstance(self.seconds, int | float) or not 0 <= self.seconds < float("inf"):
            raise ValueError("Pause takes seconds, at least 0; Hang() sends nothing ever after")


@dataclass(frozen=True, slots=True)
class Hang(Step):
    """Send nothing more, until the client leaves."""


@dataclass(frozen=True, slots=True)
class Drop(Step):
    """End the connection, with what was sent before it still to be read.

    :param reset: as a peer that crashed does (RST), and not in an orderly way (FIN)
    """

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Refuse(Step):
    """Answer with an error of the request's API instead of a reply; after nothing but pauses.

    :param status: the HTTP status: 429 for too many requests, 401 for a wrong key or password
    :param message: what the site says; None is an answer without a body
    :param retry_after: the seconds of a `Retry-After`, and of Gemini's `RetryInfo`
    :param code: the error's `code`, which sites give for the model's errors; Gemini's `status`
    """

    status: int
    message: str | None = None
    retry_after: float | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.status, int) or not 300 <= self.status < 600:
            raise ValueError("Refuse takes an HTTP status of an error, from 300 to 599")
        if self.retry_after is not None and not isfinite(self.retry_after):
            raise ValueError("retry_after is in seconds, and finite")

    @property
    def data(self) -> bytes:
        """The answer of a GPROChat site."""
        if self.message is None:
            response = WireResponse(self.status)
        else:
            response = error_response(self.status, self.message, code=self.code)
        return encode_response(response, retry_after=self.retry_after)


@dataclass(frozen=True, slots=True)
class Fail(Step):
    """The model behind the site fails: before any `Say` an error with status 500, after one the
    mark that Node deployments end a broken reply with or, in other APIs, an event with an error.

    :param message: what the site says of it, for which the mark has no place
    """

    message: str = "the model failed"


@dataclass(frozen=True, slots=True)
class Stop(Step):
    """End the reply as a whole one, and say why; a script that just ends says `"stop"`.

    GPROChat's API has a place for neither.

    :param reason: the finish reason: `"stop"`, `"length"`, `"content_filter"`, or another word of
        the API's own
    :param usage: the tokens that the reply took; OpenAI's API tells them to requests that ask
    """

    reason: str = "stop"
    usage: Usage | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason:
            raise ValueError("Stop takes a finish reason, such as 'stop' or 'length'")
        if not isinstance(self.usage, Usage | None):
            raise ValueError(f"usage is a Usage, not {type(self.usage).__name__}")


@dataclass(frozen=True, slots=True)
class Raw(Step):
    """Send these bytes as they are: for what is malformed, or not of the request's API at all.

    The site adds neither head nor end to a script with a `Raw`, and leaves the connection open
    at the script's end: let it end with `Drop()` where the client should see an end.
    """

    data: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes):
            raise ValueError(f"Raw takes bytes, not {type(self.data).__name__}")


Hold: TypeAlias = Callable[[], Awaitable[object]]
"""An async callable, such as the `wait` of an event, as a step: it holds the script up until it
returns. It is called by whoever reads the reply, and again if that read was cancelled."""
Script: TypeAlias = str | Step | Iterable[Step | Hold]
"""The steps of a reply, which is complete at their end; a str is a reply of one piece."""


def steps_of(script: Script) -> Iterable[Step | Hold]:
    """The steps of a script, one by one.

    :raises ValueError: for what is no script
    """
    if isinstance(script, str):
        return (Say(script),) if script else ()
    if isinstance(script, Step):
        return (script,)
    if not isinstance(script, Iterable):
        raise ValueError(
            f"a script is a str or a sequence of steps such as Say, not {type(script).__name__}"
        )
    return script


def checked_steps(script: Script) -> Sequence[Step | Hold]:
    """The steps of a script that is played again and again.

    :raises ValueError: if it is no script, or one that says nothing new after an end
    """
    if isinstance(script, Iterable) and not isinstance(script, Sequence):
        raise ValueError(
            "a script is a sequence of steps, which can be played again; for an endless one give a "
            "function that makes it for each request"
        )
    steps = tuple(steps_of(script))
    for number, step in enumerate(steps):
        if not isinstance(step, Step) and not callable(step):
            raise ValueError(f"step {number + 1} of a script is a {type(step).__name__}, no step")
        if isinstance(step, Refuse) and any(isinstance(s, Say | Raw) for s in steps[:number]):
            raise ValueError("Refuse is an answer of its own: it can not follow a Say or a Raw")
        if isinstance(step, Hang | Drop | Refuse | Fail | Stop) and number < len(steps) - 1:
            raise ValueError(f"{type(step).__name__} ends a script; nothing can follow it")
    return steps


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def encode_response(response: WireResponse, *, retry_after: float | None = None) -> bytes:
    """Return a response of the wire as it is sent."""
    fields = {}
    if response.content_type is not None:
        fields["content-type"] = response.content_type
    if retry_after is not None:
        fields["Retry-After"] = f"{retry_after:.15g}"  # no exponent
    return answer(response.status, response.body, fields)


def answer(status: int, body: bytes, fields: dict[str, str]) -> bytes:
    """A whole answer of known length."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {text}" for name, text in fields.items())]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
