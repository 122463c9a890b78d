"""The decoder gives the text that a model of it gives, over any split into chunks and reads."""

from __future__ import annotations

import codecs

from mutating import TRANSCRIPTS, fuzz

from gprochat_anyio._wire.gprochat import FAILURE_MARKER
from gprochat_anyio._wire.text_decoder import ReplyDecoder
from gprochat_anyio.testing._transcripts import transcripts_in


def chunks_of(data: bytes) -> tuple[list[bytes], int, bool, int | None]:
    """What an input says: HTTP chunks, the size of a read, whether it is complete, a limit."""
    flags, size, most = (*data[:3], 0, 0, 0)[:3]
    data, chunks = data[3:], []
    while data:
        if flags & 2 and data.startswith(FAILURE_MARKER):
            length = len(FAILURE_MARKER)
        else:
            length, data = data[0] % 32 + 1, data[1:]
        if data[:length]:
            chunks.append(data[:length])
        data = data[length:]
    return chunks, size % 24 + 1, bool(flags & 1), most if flags & 4 else None


def model(chunks: list[bytes], *, complete: bool, limit: int | None) -> tuple[str, bool]:
    """The text, and whether the reply is whole."""
    failed = bool(chunks) and chunks[-1] == FAILURE_MARKER
    body = b"".join(chunks[:-1] if failed else chunks)  # the mark is no text, nor counted as such
    large = limit is not None and len(body) > limit
    if large:
        body = body[:limit]
    text, valid, rest = "", True, b""
    try:
        text, used = codecs.utf_8_decode(body, "strict", False)
        rest = body[used:]
    except UnicodeDecodeError as error:
        text, valid = body[: error.start].decode(), False
    return text, complete and valid and not (large or failed or rest)


def TestOneInput(data: bytes) -> None:  # noqa: N802 - atheris's name
    chunks, size, complete, limit = chunks_of(data)
    # each byte of body, and the end of each chunk
    stream: list[tuple[int, bytes]] = []
    for number, chunk in enumerate(chunks):
        stream += [(number, chunk[i : i + 1]) for i in range(len(chunk))] + [(number, b"")]
    decoder = ReplyDecoder(max_size=limit)
    text = ""
    for start in range(0, len(stream), size):
        read = stream[start : start + size]
        pieces: list[bytes] = []
        for _, byte in read:
            if byte and pieces and pieces[-1]:
                pieces[-1] += byte
            else:
                pieces.append(byte)
        last = len(chunks[read[-1][0]])
        text += decoder.feed(pieces, lambda _, known=last: known)  # type: ignore[misc]
        if decoder.failure is not None:
            break
    if decoder.failure is None:
        if complete:
            decoder.finish()
        else:
            text += decoder.cut()
    expected, whole = model(chunks, complete=complete, limit=limit)
    assert text == expected, (text, expected)
    assert (complete and decoder.failure is None) == whole, decoder.failure


def seeds() -> list[bytes]:
    found = []
    for transcript in transcripts_in([TRANSCRIPTS]):
        body = b"".join(read.data for read in transcript.response).partition(b"\r\n\r\n")[2]
        found += [bytes((flags, 7, 40)) + body for flags in (0, 1, 3, 5)]
    return [*found, b"\x03\x03\x00\x02ok" + FAILURE_MARKER, b"\x02\x03\x00" + FAILURE_MARKER]


if __name__ == "__main__":
    fuzz(TestOneInput, seeds())
