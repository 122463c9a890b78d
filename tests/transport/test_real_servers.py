"""`AnyIOTransport` against independent servers: uvicorn, Hypercorn, Node.js and nginx."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.http_libraries import httpx
from support.processes import answers, free_port, running
from support.servers import authority, client_context

from gprochat_anyio.transport import AnyIOTransport

pytestmark = pytest.mark.slow

MANY = 3_000_000

APPLICATION = """
import asyncio, hashlib

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    digest, more, size = hashlib.sha256(), True, 0
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body = message.get("body", b"")
        digest.update(body)
        size += len(body)
        more = message.get("more_body", False)
    path = scope["path"]
    if path == "/digest":
        parts, headers = [digest.hexdigest().encode()], [(b"content-length", b"64")]
    elif path == "/stream":
        parts, headers = [b"part %d\\n" % number for number in range(500)], []
    elif path == "/large":
        parts, headers = [b"x" * 100_000] * 30, [(b"content-length", b"3000000")]
    elif path == "/none":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        return
    else:
        parts, headers = [b"hello"], [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] != "HEAD":
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})
"""

NODE = """
const http = require("http"), https = require("https"), crypto = require("crypto"),
  fs = require("fs"), [pem] = process.argv.slice(2);
const answer = (request, response) => {
  const digest = crypto.createHash("sha256");
  request.on("data", (data) => digest.update(data));
  request.on("end", () => {
    if (request.url === "/digest") response.end(digest.digest("hex"));
    else if (request.url === "/stream") {
      for (let i = 0; i < 500; i++) response.write(`part ${i}\\n`);
      response.end();
    } else if (request.url === "/large") response.end("x".repeat(3000000));
    else if (request.url === "/none") { response.statusCode = 204; response.end(); }
    else response.end("hello");
  });
};
const server = pem
  ? https.createServer({ key: fs.readFileSync(pem), cert: fs.readFileSync(pem) }, answer)
  : http.createServer(answer);
server.listen({ fd: 3 });
"""

NGINX = """
daemon off;
master_process off;  # whose workers would be nobody, who may not read our folders
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 1m;
  server {{
    listen 127.0.0.1:{port} {tls};
    {certificate}
    root {folder}/root;
    location = /none {{ return 204; }}
    location = / {{ return 200 "hello"; }}
  }}
}}
"""


@pytest.fixture(scope="module", params=["plain", "tls"])
def pem(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Return the file of a key and a certificate, or None without TLS."""
    if request.param == "plain":
        return None
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    authority().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module", params=["uvicorn-h11", "uvicorn-httptools", "hypercorn", "node"])
def url(
    request: pytest.FixtureRequest, pem: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a server."""
    folder = tmp_path_factory.mktemp("server")
    name, _, parser = request.param.partition("-")
    (folder / "application.py").write_text(APPLICATION)
    (folder / "server.js").write_text(NODE)
    if name == "node":
        if shutil.which("node") is None:
            pytest.skip("requires Node.js")
        command = ["node", "server.js", str(pem or "")]
    elif importlib.util.find_spec(name) is None:
        pytest.skip(f"no {name} here")
    elif name == "uvicorn":
        command = [sys.executable, "-m", "uvicorn", "application:app", "--fd", "3"]
        command += ["--http", parser, "--no-access-log"]
        if pem is not None:
            command += ["--ssl-keyfile", str(pem), "--ssl-certfile", str(pem)]
    else:
        command = [sys.executable, "-m", "hypercorn", "application:app"]
        bind = ["--bind", "fd://3"]
        if pem is not None:
            command += ["--keyfile", str(pem), "--certfile", str(pem)]
        command += bind
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        with running(command, folder, listener):
            origin = "http://127.0.0.1" if pem is None else "https://localhost"
            yield f"{origin}:{listener.getsockname()[1]}"


@pytest.fixture
async def client() -> Any:
    transport = AnyIOTransport(ssl_context=client_context(), max_connections=20)
    with anyio.fail_after(30):
        async with httpx.AsyncClient(transport=transport, timeout=20) as made:
            yield made


async def test_requests_of_all_kinds(url: str, client: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await client.get(f"{url}/")).text == "hello"
        got = await client.head(f"{url}/")
        assert (got.status_code, got.content) == (200, b"")
        assert (await client.get(f"{url}/none")).status_code == 204
        got = await client.post(f"{url}/digest", content=b"abc")
        assert got.text == hashlib.sha256(b"abc").hexdigest()
        got = await client.post(f"{url}/digest")
        assert got.text == hashlib.sha256().hexdigest()


async def test_streams(url: str, client: httpx.AsyncClient) -> None:
    async with client.stream("GET", f"{url}/stream") as response:
        assert response.headers["transfer-encoding"] == "chunked"
        body = b"".join([piece async for piece in response.aiter_raw()])
    assert body == b"".join(b"part %d\n" % number for number in range(500))


async def test_large_bodies(url: str, client: httpx.AsyncClient) -> None:
    async def parts() -> AsyncGenerator[bytes]:
        for _ in range(30):
            yield b"y" * 100_000

    whole = hashlib.sha256(b"y" * MANY).hexdigest()
    assert (await client.post(f"{url}/digest", content=b"y" * MANY)).text == whole
    assert (await client.post(f"{url}/digest", content=parts())).text == whole
    assert (await client.get(f"{url}/large")).content == b"x" * MANY


async def test_many_at_once(url: str, client: httpx.AsyncClient) -> None:
    async def ask(number: int) -> None:
        content = b"%d" % number
        got = await client.post(f"{url}/digest", content=content)
        assert got.text == hashlib.sha256(content).hexdigest()

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(ask, number)


@pytest.fixture(scope="module")
def nginx(pem: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("requires nginx")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "root").mkdir()
    (folder / "root" / "large").write_bytes(b"x" * MANY)
    port = free_port()
    certificate = f"ssl_certificate {pem}; ssl_certificate_key {pem};" if pem else ""
    (folder / "nginx.conf").write_text(
        NGINX.format(folder=folder, port=port, tls="ssl" if pem else "", certificate=certificate)
    )
    with running([program, "-c", f"{folder}/nginx.conf", "-p", str(folder)], folder, None):
        assert answers(port), (folder / "log").read_text()
        yield f"{'https' if pem else 'http'}://localhost:{port}"


async def test_nginx(nginx: str, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        assert (await client.get(f"{nginx}/")).text == "hello"
        assert (await client.head(f"{nginx}/large")).headers["content-length"] == str(MANY)
        assert (await client.get(f"{nginx}/large")).content == b"x" * MANY
        assert (await client.get(f"{nginx}/none")).status_code == 204
        assert (await client.get(f"{nginx}/missing")).status_code == 404


async def test_nginx_refuses_a_body_before_it_arrives(
    nginx: str, client: httpx.AsyncClient
) -> None:
    async with client.stream("POST", f"{nginx}/", content=b"x" * 20_000_000) as response:
        assert response.status_code == 413
    assert (await client.get(f"{nginx}/")).text == "hello"
