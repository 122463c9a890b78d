"""Requests that a browser sends on behalf of other pages, and rebound host names."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import Headers
from support.site_wire import Seen, connected, serving, signed

from gprochat_anyio.site import create_app, echo_model, serve
from gprochat_anyio.site._cross_site_guard import is_own_origin

PATHS = ["/api/generate", "/api/auth", "/v1/chat/completions"]
OTHERS = [
    "",
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "[::2]",
    "192.0.2.1",
    "0.0.0.0",  # noqa: S104
    "2130706433",
]


async def posted(port: int, path: str, **fields: str) -> Seen:
    """Return the response to a POST with these header fields. `_` in a name stands for `-`."""
    body = signed()
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    head = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{''.join(lines)}\r\n"
    async with connected(port) as wire:
        await wire.stream.send(head.encode() + body)
        return await wire.read()


def is_refused(seen: Seen) -> bool:
    return seen.status == 403


@pytest.mark.parametrize("path", PATHS)
async def test_another_host_is_refused(path: str) -> None:
    async with serving() as port:
        for host in OTHERS:
            seen = await posted(port, path, Host=host)
            assert is_refused(seen), host
            assert b"--host-name" in seen.body
            assert b"password" in seen.body


@pytest.mark.parametrize("path", ["/", "/v1/models"])
async def test_another_host_cannot_read(path: str) -> None:
    async with serving() as port, connected(port) as wire:
        await wire.stream.send(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
        assert is_refused(await wire.read())
        # The target's authority takes precedence over the header.
        await wire.stream.send(
            f"GET http://evil.example{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        assert is_refused(await wire.read())


async def test_a_request_without_a_host_reaches_only_the_health_check() -> None:
    async with serving() as port:
        for path, status in (("/v1/models", b"403"), ("/healthz", b"200")):
            async with connected(port) as wire:
                await wire.stream.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                assert (await wire.read_to_close()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8000", "chat.localhost", "127.0.0.1:", "127.1.2.3:80", "[::1]:8000"],
)
async def test_loopback_names_and_addresses(host: str) -> None:
    async with serving() as port:
        assert (await posted(port, "/api/generate", Host=host)).status == 200


@pytest.mark.parametrize("hosts", [["Chat.example.org"], ("chat.example.org:8443", "::2")])
async def test_the_site_s_names(hosts: Any) -> None:
    async with serving(echo_model, hosts=hosts) as port:
        assert not is_refused(await posted(port, "/api/generate", Host="chat.example.org:8443"))
        assert is_refused(await posted(port, "/api/generate", Host="org"))
        refused = is_refused(await posted(port, "/api/generate", Host="[::2]:80"))
        assert refused is ("::2" not in hosts)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin",
    ["null", "https://evil.example", "http://localhost:3000", "http://localhost:8000.evil.example"],
)
async def test_a_page_of_another_origin_is_refused(path: str, origin: str) -> None:
    async with serving() as port:
        seen = await posted(port, path, Host="localhost:8000", Origin=origin)
        assert is_refused(seen)
        assert b"--host-name" in seen.body


async def test_the_site_s_own_page() -> None:
    async with serving(echo_model, hosts=["chat.example.org"]) as port:
        for host, origin in [
            ("localhost:8000", "http://localhost:8000"),
            ("chat.example.org", "https://chat.example.org"),
            ("127.0.0.1:8000", "https://chat.example.org"),  # the proxy sends its own host
        ]:
            seen = await posted(port, "/api/generate", Host=host, Origin=origin)
            assert seen.status == 200


async def test_a_password_admits_any_host_and_origin() -> None:
    body_of_another = {"Host": "evil.example", "Origin": "https://other.example"}
    async with serving(echo_model, passwords=["word"]) as port:
        assert (await posted(port, "/api/generate", **body_of_another)).status == 401
        refused = await posted(port, "/api/generate", **body_of_another, Sec_Fetch_Site="same-site")
        assert is_refused(refused)


@pytest.mark.parametrize("host", ["", "https://chat.example.org", "a b", "a/b", "user@host"])
def test_an_invalid_host(host: str) -> None:
    with pytest.raises(ValueError, match="hosts must be names"):
        create_app(hosts=[host])


async def test_hosts_as_a_single_string() -> None:
    with pytest.raises(TypeError, match="hosts"):
        create_app(hosts="chat.example.org")
    with pytest.raises(ValueError, match="give them to create_app"):
        await serve(create_app(), hosts=["chat.example.org"])


def test_each_origin_must_be_the_site_s_own() -> None:
    host, own = (b"host", b"localhost:8000"), (b"origin", b"http://localhost:8000")
    assert is_own_origin(Headers(raw=[host, own]), frozenset())
    for others in [(), ((b"origin", b"https://evil.example"),), ((b"origin", b"null"),)]:
        raw = [host, *((own, *others) if others else ())]
        assert not is_own_origin(Headers(raw=raw), frozenset())
    assert not is_own_origin(Headers(raw=[(b"origin", b"null")]), frozenset())
