"""Failed replies of a site behind proxies."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import anyio
import httpx
import pytest
from support.processes import answers, free_port, running
from support.site_wire import serving, signed

from gprochat_anyio import Client, ReplyInterruptedError, as_completed
from gprochat_anyio._wire.gprochat import GENERATE_PATH
from gprochat_anyio.site import ModelError, Turn

pytestmark = pytest.mark.slow

NGINX: Final = """
daemon off;
master_process off;
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
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{site}; %s }}
  }}
}}
"""

RECOMMENDED: Final = (
    "proxy_http_version 1.1; proxy_set_header Host $host; proxy_buffering off; "
    "proxy_read_timeout 300s;"
)

HAPROXY: Final = """
global
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server site 127.0.0.1:{site}
"""

CADDY: Final = """
{{
  admin off
  storage file_system {folder}
}}
http://127.0.0.1:{port} {{
  reverse_proxy 127.0.0.1:{site}
}}
"""

PROXIES: Final = {
    "nginx": ("nginx", NGINX % "", ["-p", "{folder}", "-c"]),
    "nginx as recommended": ("nginx", NGINX % RECOMMENDED, ["-p", "{folder}", "-c"]),
    "haproxy": ("haproxy", HAPROXY, ["-db", "-f"]),
    "caddy": ("caddy", CADDY, ["run", "--adapter", "caddyfile", "--config"]),
}


async def failing_model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    """Fail after some text, in one piece or several."""
    number = int(turns[-1].text)
    for piece in range(number % 3 + 1):
        yield f"{number}.{piece} "
        if number % 2:
            await anyio.lowlevel.checkpoint()
    raise ModelError("the model is gone")


def text_of(number: int) -> str:
    return "".join(f"{number}.{piece} " for piece in range(number % 3 + 1))


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Yield the ports of a proxy and of its site, which is not listening yet."""
    name, configuration, arguments = PROXIES[request.param]
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"no {name} here")
    port, site = free_port(), free_port()
    places = {"folder": tmp_path, "port": port, "site": site}
    file = tmp_path / "configuration"
    file.write_text(configuration.format(**places))
    command = [program, *(argument.format(**places) for argument in arguments), str(file)]
    with running(command, tmp_path, None):
        assert answers(port), (tmp_path / "log").read_text()
        yield port, site


async def test_every_failed_reply_fails(proxy: tuple[int, int], *, full: bool) -> None:
    port, site = proxy
    number = 200 if full else 50
    failed = set()
    hosts = [f"127.0.0.1:{port}"]  # nginx does not forward Host by default
    async with (
        serving(failing_model, port=site, hosts=hosts),
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        prompts = map(str, range(number))
        async with as_completed(client, prompts, max_at_once=8) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome.error, ReplyInterruptedError), outcome
                assert outcome.error.partial_text == text_of(outcome.index)
                failed.add(outcome.index)
    assert failed == set(range(number))


# nginx uses HTTP/1.0 by default, which has no framing to break, and Caddy 2.6 repairs the framing.
@pytest.mark.parametrize("proxy", ["nginx as recommended", "haproxy"], indirect=True)
async def test_a_failed_reply_fails_for_other_clients(proxy: tuple[int, int]) -> None:
    port, site = proxy
    async with serving(failing_model, port=site), httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(f"http://127.0.0.1:{port}{GENERATE_PATH}", content=signed("5"))
