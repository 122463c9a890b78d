"""Fuzzer of the reply decoder: for any split, the text and the failure of a simple model."""

from __future__ import annotations

import codecs

from support.mutating import TRANSCRIPTS, fuzz

from gprochat_anyio._wire.gprochat import FAILURE_MARKER
from gprochat_anyio._wire.reply_decoder import TextDecoder
from gprochat_anyio.testing._transcripts import transcripts_in


def model(body: bytes, *, complete: bool, limit: int | None) -> tuple[str, bool]:
    """Return the text, and True if the reply is complete."""
    large = limit is not None and len(body) > limit
    body = body[:limit]
    failed = not large and body.endswith(FAILURE_MARKER)
    if failed:
        body = body.removesuffix(FAILURE_MARKER)
    text, valid, rest = "", True, b""
    try:
        text, used = codecs.utf_8_decode(body, "strict", False)
        rest = body[used:]
    except UnicodeDecodeError as error:
        text, valid = body[: error.start].decode(), False
    return text, complete and valid and not (large or failed or rest)


def TestOneInput(data: bytes) -> None:  # noqa: N802 - atheris requires the name
    flags, size, most = (*data[:3], 0, 0, 0)[:3]
    body, complete, limit = data[3:], bool(flags & 1), most if flags & 4 else None
    if flags & 2:
        body += FAILURE_MARKER[: size % 22]
    expected, whole = model(body, complete=complete, limit=limit)
    for step in (size % 24 + 1, 1, len(body) or 1):
        decoder = TextDecoder(max_size=limit)
        text = "".join(
            [decoder.feed(body[start : start + step]) for start in range(0, len(body), step)]
        )
        text += decoder.finish() if complete else decoder.cut()
        assert text == expected, (step, text, expected)
        assert (complete and decoder.failure is None) == whole, (step, decoder.failure)


def seeds() -> list[bytes]:
    found = []
    for transcript in transcripts_in([TRANSCRIPTS]):
        body = b"".join(read.data for read in transcript.response).partition(b"\r\n\r\n")[2]
        found += [bytes((flags, 7, 40)) + body for flags in (0, 1, 3, 5)]
    return [*found, b"\x03\x03\x00ok" + FAILURE_MARKER, b"\x05\x03\x16" + FAILURE_MARKER + b"."]


if __name__ == "__main__":
    fuzz(TestOneInput, seeds())
