"""The embedded site and the testing kit share the code that refuses requests, with the same
bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from starlette.types import Message
from support.bad_requests import BAD_REQUESTS, PASSWORD, SECRET_KEY, USER, asking

import gprochat_anyio
from gprochat_anyio._wire import admission
from gprochat_anyio._wire.gprochat import AUTH_PATH, GENERATE_PATH
from gprochat_anyio.site import _app, create_app
from gprochat_anyio.testing import _scripted_site, scripted_site

BAD_PASSWORD_CHECKS = [b"", b"{", b"\xff", b"[NaN]", b"[]", b"{}", b'{"pass":1}', b'{"pass":"x"}']


class Refused(NamedTuple):
    status: int
    content_type: str | None
    body: bytes


async def from_the_embedded_site(path: str, body: bytes) -> Refused:
    app = create_app(secret_key=SECRET_KEY, passwords=[PASSWORD])
    sent: list[Message] = []
    gone = anyio.Event()
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if requests:
            return requests.pop()
        await gone.wait()
        pytest.fail("the site waits for its client")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    with anyio.fail_after(5):
        await app(scope, receive, send)
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    content = b"".join(message["body"] for message in sent[1:])
    return Refused(sent[0]["status"], fields.get("content-type"), content)


async def from_the_scripted_site(path: str, body: bytes) -> Refused:
    with scripted_site("let in", secret_key=SECRET_KEY, password=PASSWORD) as site:
        connection = site.connect()
        head = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        with anyio.fail_after(5):
            await connection.send(head.encode() + body)
            response = await connection.receive()
        assert [request.outcome for request in site.requests] == ["refused"] * (path != AUTH_PATH)
        connection.close()
    first, _, content = response.partition(b"\r\n\r\n")
    status, *lines = first.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert int(fields["content-length"]) == len(content)
    return Refused(int(status.split()[1]), fields.get("content-type"), content)


Asking = Callable[[str, bytes], Awaitable[Refused]]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((GENERATE_PATH, body) for body in BAD_REQUESTS),
        *((AUTH_PATH, body) for body in BAD_PASSWORD_CHECKS),
    ],
    ids=lambda given: given[:60].decode("latin-1") if isinstance(given, bytes) else None,
)
async def test_both_sites_refuse_with_the_same_bytes(path: str, body: bytes) -> None:
    refused = await from_the_embedded_site(path, body)
    assert refused == await from_the_scripted_site(path, body)
    assert refused.status in (400, 401, 500) or (path, refused.body) == (AUTH_PATH, b'{"code":-1}')
    assert (refused.content_type is None) == (refused.body == b"")


async def test_the_unmodified_request_is_accepted() -> None:
    with scripted_site("let in", secret_key=SECRET_KEY, password=PASSWORD) as site:
        connection = site.connect()
        body = asking(USER, USER | {"role": "model"}, USER)
        await connection.send(
            b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert (await connection.receive()).startswith(b"HTTP/1.1 200 ")
        connection.close()
    assert site.requests[0].messages == (("user", "a"), ("model", "a"), ("user", "a"))


def test_there_is_one_implementation() -> None:
    for module in (_app, _scripted_site):
        assert vars(module)["Gate"] is admission.Gate
    sources = [
        path.read_text("utf-8") for path in Path(gprochat_anyio.__file__).parent.rglob("*.py")
    ]
    for rule in (
        admission.INVALID_HISTORY,
        admission.INVALID_PASSWORD,
        admission.INVALID_ROLE,
        admission.INVALID_SIGNATURE,
        "N{REPLACEMENT CHARACTER}",
        "compare_digest(",
    ):
        assert sum(rule in source for source in sources) == 1, rule


@pytest.mark.slow
def test_the_testing_kit_does_not_import_the_site() -> None:
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['starlette', 'h11', 'gprochat_anyio.site'])\n"
        "from gprochat_anyio.testing import *\n"
        "with scripted_site('ok') as site: assert site.url"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
