"""Fuzzer of error responses: any response becomes one typed error with a message."""

from __future__ import annotations

from contextlib import suppress

from support.mutating import TRANSCRIPTS, fuzz

from gprochat_anyio import AuthenticationError, RateLimitError, SiteError, UnexpectedResponseError
from gprochat_anyio._wire.error_responses import check_reply_head, read_error
from gprochat_anyio._wire.gprochat import decode_auth
from gprochat_anyio.testing._transcripts import transcripts_in

STATUSES = (400, 401, 403, 404, 429, 500, 502, 503, 504, 599, 100, 201)
KINDS = {SiteError, AuthenticationError, RateLimitError, UnexpectedResponseError}


def TestOneInput(data: bytes) -> None:  # noqa: N802 - atheris requires the name
    if not data:
        return
    status, data = STATUSES[data[0] % len(STATUSES)], data[1:]
    head, _, body = data.partition(b"\r\n\r\n")
    headers = {}
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    error = read_error(status, headers, body)
    assert type(error) in KINDS
    assert error.status == status
    assert str(error)
    assert str(error).isprintable(), repr(str(error))
    assert len(str(error)) < 1200
    assert error.code is None or isinstance(error.code, str)
    assert error.site_message is None or isinstance(error.site_message, str)
    assert error.retry_after is None or error.retry_after >= 0
    assert isinstance(error, RateLimitError) or status != 429
    for framed in (False, True):
        refused = check_reply_head(200, headers, framed=framed)
        assert refused is None or (str(refused).isprintable() and framed <= (refused is not None))
        assert framed or refused is not None
    with suppress(UnexpectedResponseError):
        assert decode_auth(body) in (True, False)


def seeds() -> list[bytes]:
    found = []
    for transcript in transcripts_in([TRANSCRIPTS]):
        data = b"".join(read.data for read in transcript.response).partition(b"\r\n")[2][:2000]
        found += [bytes((number,)) + data for number in range(6)]
    late = b"Retry-After: Sun, 06 Nov 2094 08:49:37 GMT\r\nDate: Sun, 06 Nov 2094 08:49:30 GMT"
    return [
        *found,
        b"\x04" + late + b"\r\n\r\n{}",
        b"\x04Retry-After: 7\r\n\r\n",
        b'\0\r\n\r\n{"code":0}',
    ]


if __name__ == "__main__":
    fuzz(TestOneInput, seeds())
