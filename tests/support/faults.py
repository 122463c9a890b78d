"""Every fault of a request, in every phase: its error, and the number of attempts with retries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import anyio

from gprochat_anyio import (
    Client,
    GPROChat,
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    SiteError,
    UnexpectedResponseError,
)
from gprochat_anyio._errors import Phase
from gprochat_anyio.testing import Drop, Hang, Pause, Raw, Refuse, Say, Script
from support.apis import GPROCHAT, Api

from .deaf_site import Take
from .response_bytes import LAST_CHUNK, REPLY_HEAD, answer, chunk
from .scripted import Endless, reply

WAYS = ["ask", "stream", "stream_to", "provider"]


async def receive_by(
    way: str, client: Client, prompt: str = "hello", *, into: list[str] | None = None, **kwargs: Any
) -> str:
    """Return the reply, received in one of the four ways.

    :param into: Gets the pieces as they arrive, including those before a failure.
    """
    pieces = [] if into is None else into
    if way == "ask":
        return (await client.ask(prompt, **kwargs)).text
    if way == "stream":
        async with client.stream(prompt, **kwargs) as chunks:
            async for piece in chunks:
                pieces.append(piece)
        return chunks.text
    if way == "stream_to":
        send, receive = anyio.create_memory_object_stream[str](10_000)
        with receive:
            try:
                return (await client.stream_to(prompt, send, **kwargs)).text
            finally:
                while receive.statistics().current_buffer_used:
                    pieces.append(receive.receive_nowait())
    history = [{"role": "user", "content": prompt}]
    generator = GPROChat.create_async_generator(
        "", history, url=client.url, timeouts=client.timeouts, **kwargs
    )
    async for piece in generator:
        pieces.append(piece)
    return "".join(pieces)


ADVICE = re.compile(
    "ask again|send fewer|add |check |give |increase |wait |put |set "
    "|The site |something in front|says: |code is "
)


def assert_ours(failure: GPROChatError, kind: type[GPROChatError], text: str = "") -> None:
    """Assert that it is one error of the library, with advice and without other exceptions in
    it."""
    assert type(failure) is kind
    assert ADVICE.search(str(failure)), str(failure)
    assert failure.__cause__ is None
    assert failure.__context__ is None
    assert getattr(failure, "partial_text", "") == text


@dataclass(frozen=True)
class Fault:
    """A way in which a site, or a proxy in front of it, fails."""

    phase: str
    kind: str
    error: type[GPROChatError]
    script: Script | Endless
    """The site's behaviour after the request. In "tls", "proxy" and "send", after the first
    bytes."""
    attempts: int
    """Number of requests of a client with `Retry(attempts=3)`."""
    clock: Phase | None = None
    text: str = ""
    api: Api = GPROCHAT

    def __str__(self) -> str:
        name = f"{self.phase}: {self.kind}"
        return name if self.api is GPROCHAT else f"{self.api}: {name}"

    @property
    def greets(self) -> bool:
        """True if the site never reads a request."""
        return self.phase in ("tls", "proxy", "socks", "send")


_LOST, _CUT, _ODD, _LATE = (
    SiteConnectionError,
    ReplyInterruptedError,
    UnexpectedResponseError,
    RequestTimeoutError,
)
_FIRST = REPLY_HEAD + chunk(b"one")
_OK = b"HTTP/1.1 200 OK\r\n"
_500 = b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n"
_TYPED = _OK + b"Content-Type: text/plain\r\n"
_SSH = Raw(b"SSH-2.0-OpenSSH\r\n")
_FIELDS = Endless(_OK, b"X: y\r\n" * 100)
_TWO_FRAMINGS = Raw(_OK + b"Content-Length: 5\r\n" + REPLY_HEAD[17:])
_NO_FRAMING = Raw(Refuse(500, "no").data.replace(b"Length", b"L"))


def _ends(start: bytes, *, text: str = "", error: type[GPROChatError], attempts: int) -> Any:
    for kind, end in (("FIN", Drop()), ("RST", Drop(reset=True))):
        yield kind, error, [Raw(start), end], attempts, None, text


def _late(start: bytes, byte: bytes, clock: Phase, text: str = "") -> Any:
    yield "stall", _LATE, [Raw(start), Hang()], 1, clock, text
    yield "trickle", _LATE, [Raw(start), *[Raw(byte), Pause(1)] * 1000], 1, clock, text


_TABLE: dict[str, list[Any]] = {
    "tls": [
        *_late(b"\x16\x03\x03\x40\x00", b"\x02", "connect"),
        *_ends(b"\x16\x03\x03", error=_LOST, attempts=3),
        ("garbage", _LOST, _SSH, 3),
        ("plain HTTP", _LOST, Raw(reply("no TLS")), 3),
        (
            "oversize",
            _LOST,
            Endless(b"", b"\x16\x03\x03\x40\x00\x02\xff\xff\xff" + bytes(0x3FFC)),
            3,
        ),
        ("wrong framing", _LOST, [Raw(b"\x16\x03\x03\xff\xff" + bytes(99)), Hang()], 3),
        ("alert", _LOST, Raw(b"\x15\x03\x03\x00\x02\x02\x28"), 3),
    ],
    "proxy": [
        *_late(b"HTTP/1.1 200 ", b"O", "connect"),
        *_ends(b"HTTP/1.1 200 OK\r\n", error=_LOST, attempts=3),
        ("garbage", _LOST, _SSH, 3),
        ("oversize", _LOST, _FIELDS, 3),
        ("wrong framing", _LOST, Raw(_OK + b"\r\nsurplus"), 3),
        ("refusal", _LOST, Refuse(503), 3),
        ("credentials", _LOST, Refuse(407), 1),
        ("credentials, RST", _LOST, [Raw(b"HTTP/1.1 407 "), Drop(reset=True)], 1),
    ],
    "socks": [
        *_late(b"\x05\x00\x05\x00\x00\x03\xff", b"x", "connect"),
        *_ends(b"\x05", error=_LOST, attempts=3),
        ("garbage", _LOST, _SSH, 3),
        ("oversize", _LOST, Endless(b"", b"\x05" * 1000), 3),
        ("credentials", _LOST, Raw(b"\x05\xff"), 1),
        ("wrong framing", _LOST, [Raw(b"\x05\x00\x05\x00\x00\x09" + bytes(300)), Hang()], 3),
        ("refusal", _LOST, Raw(b"\x05\x00\x05\x05\x00\x01" + bytes(6)), 3),
    ],
    "send": [
        ("stall", _LATE, Hang(), 1, "first_chunk"),
        ("trickle", _LATE, [Take(1000), Pause(1)] * 1000, 1, "first_chunk"),
        ("FIN", _LOST, Drop(), 3),
        ("RST", _LOST, Drop(reset=True), 3),
        ("garbage", _ODD, [_SSH, Hang()], 1),
        ("oversize", _ODD, _FIELDS, 1),
        ("answered early", SiteError, [Raw(Refuse(400, "too much").data), Hang()], 1),
    ],
    "head": [
        *_late(b"HTTP/1.1 200 ", b"O", "first_chunk"),
        ("silence", _LATE, Hang(), 1, "first_chunk"),
        *_ends(_OK, error=_CUT, attempts=3),
        ("FIN at once", _LOST, Drop(), 3),
        ("RST at once", _LOST, Drop(reset=True), 3),
        ("garbage", _ODD, _SSH, 1),
        ("oversize", _ODD, _FIELDS, 1),
        ("endless interim answers", _ODD, Endless(b"", b"HTTP/1.1 103 E\r\nA: b\r\n\r\n" * 99), 1),
        ("wrong framing", _ODD, _TWO_FRAMINGS, 1),
        ("no framing", _ODD, [Raw(_TYPED + b"\r\nhalf"), Drop()], 1),
        ("another version", _ODD, Raw(b"HTTP/2.0 200 OK\r\n\r\n"), 1),
        ("101", _ODD, Raw(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), 1),
        ("redirect", _ODD, Raw(answer(307, b"", {"Location": "http://127.0.0.1:9/"})), 1),
        ("HTML", _ODD, Raw(answer(200, b"<html>", {"Content-Type": "text/html"})), 1),
        (
            "compressed",
            _ODD,
            Endless(REPLY_HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n", chunk(bytes(999))),
            1,
        ),
    ],
    "first_chunk": [
        *_late(REPLY_HEAD + b"5;", b"a", "first_chunk"),
        *_ends(REPLY_HEAD + b"5\r\n", error=_CUT, attempts=3),
        ("cut in a character", _CUT, [Raw(REPLY_HEAD + b"5\r\n\xf0\x9f"), Drop()], 3),
        ("garbage", _CUT, Raw(REPLY_HEAD + b"zz\r\n"), 3),
        ("oversize", _CUT, Endless(REPLY_HEAD + b"5;", b"a=b;" * 100), 3),
        ("wrong framing", _CUT, Raw(REPLY_HEAD + b"1\r\n\xe2X"), 3),
        ("the model failed", _CUT, Raw(reply("Internal server error")), 3),
    ],
    "body": [
        *_late(_FIRST + b"5;", b"a", "idle", "one"),
        *_ends(_FIRST + b"5\r\nt", text="onet", error=_CUT, attempts=1),
        ("FIN between chunks", _CUT, [Say("one"), Drop()], 1, None, "one"),
        ("RST between chunks", _CUT, [Say("one"), Drop(reset=True)], 1, None, "one"),
        ("garbage", _CUT, Raw(_FIRST + b"zz\r\n"), 1, None, "one"),
        ("oversize", _CUT, Endless(_FIRST, chunk(b"x" * 1000)), 1, None, "one" + "x" * 9997),
        ("wrong framing", _CUT, Raw(_FIRST + b"2\r\nokX"), 1, None, "oneok"),
        ("no UTF-8", _CUT, Raw(_FIRST + chunk(b"ok\xff") + LAST_CHUNK), 1, None, "oneok"),
        ("cut in a character", _CUT, Raw(_FIRST + chunk(b"\xd0") + LAST_CHUNK), 1, None, "one"),
        ("the model failed", _CUT, Raw(reply("one", "Internal server error")), 1, None, "one"),
        ("short", _CUT, [Raw(_TYPED + b"Content-Length: 9\r\n\r\none"), Drop()], 1, None, "one"),
    ],
    "trailers": [
        *_late(_FIRST + b"0\r\nX", b"x", "idle", "one"),
        *_ends(_FIRST + b"0\r\n", text="one", error=_CUT, attempts=1),
        ("garbage", _CUT, Raw(_FIRST + b"0\r\nno field\r\n\r\n"), 1, None, "one"),
        ("oversize", _CUT, Endless(_FIRST + b"0\r\n", b"X: y\r\n" * 100), 1, None, "one"),
        ("wrong framing", _CUT, Raw(_FIRST + b"0\r\nContent-Length: 3\r\n\r\n"), 1, None, "one"),
    ],
    "error answer": [
        *_late(_500 + b"5;", b"a", "first_chunk"),
        *_ends(_500 + b"5\r\n{", error=_CUT, attempts=3),
        ("garbage", _CUT, Raw(_500 + b"zz\r\n"), 3),
        ("oversize", _ODD, Endless(_500, chunk(b"x" * 1000)), 1),
        ("wrong framing", _CUT, Raw(_500 + b"2\r\nokX"), 3),
        ("no framing", SiteError, [_NO_FRAMING, Drop()], 1),
        ("no framing, RST", _CUT, [_NO_FRAMING, Drop(reset=True)], 3),
        ("rate limit", RateLimitError, Refuse(500, "[429 Too Many Requests]"), 3),
    ],
    "kept connection": [
        *_late(b"HTTP/1.1 200 ", b"O", "first_chunk"),
        ("FIN", _LOST, Drop(), 3),
        ("RST", _LOST, Drop(reset=True), 3),
        ("garbage", _ODD, _SSH, 1),
        ("oversize", _ODD, _FIELDS, 1),
        ("wrong framing", _ODD, _TWO_FRAMINGS, 1),
    ],
}

FAULTS = [Fault(phase, *entry) for phase, entries in _TABLE.items() for entry in entries]
