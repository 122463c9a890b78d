"""`gprochat check`: its results for sites in every state."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from click.testing import CliRunner, Result
from support.embedded_site import embedded_site
from support.model_servers import event, openai
from support.raw_site import BOUND

from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError
from gprochat_anyio.transport import _tls


@contextmanager
def answering(
    auth: str,
    generate: str = "",
    kind: str = "text/plain",
    tls: ssl.SSLContext | None = None,
    error: int = 500,
) -> Iterator[str]:
    """Run a site that accepts any number of connections, including those without a request.

    :param generate: The text of the reply. Empty for an error of the site.
    :param error: The status of an error.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = (auth if self.path == "/api/auth" else generate).encode()
            self.send_response(200 if body else error)
            self.send_header("Content-Type", kind)
            body = body or b'{"error":{"message":"the model\\u001b[2J refused"}}'
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(BOUND)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return f"--backend={request.param}"


@pytest.fixture(scope="module")
def protected() -> Iterator[dict[str, str]]:
    with embedded_site() as env:
        yield {name: value for name, value in env.items() if name.startswith("GPROCHAT_")}


def check(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(gprochat, ["check", *arguments], env=env)


def last_line(result: Result) -> str:
    assert result.stdout.endswith("\n")
    return result.stdout.splitlines()[-1]


def test_all_is_well(protected: dict[str, str], backend: str) -> None:
    result = check(backend, **protected)
    steps = [line.split()[:2] for line in result.stdout.splitlines()]
    url = protected["GPROCHAT_URL"]
    assert steps == [[url], ["ok", "name"], ["ok", "TCP"], ["ok", "password"], ["ok", "key,"]]
    assert "first text after 0." in last_line(result)
    assert "the site accepts it" in result.stdout
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"GPROCHAT_PASSWORD": "x"}, "FAILED  password    the site refuses it; set password"),
        ({"GPROCHAT_PASSWORD": ""}, "FAILED  password    the site requires one"),
        ({"GPROCHAT_SECRET_KEY": "x"}, "FAILED  key, text   the site refused the signature"),
    ],
)
def test_a_wrong_credential(protected: dict[str, str], wrong: dict[str, str], said: str) -> None:
    result = check(**protected | wrong)
    assert last_line(result).startswith(said)
    assert result.exit_code == 5
    assert protected["GPROCHAT_PASSWORD"] not in result.stdout


def test_a_site_without_a_password() -> None:
    with answering('{"code":0}', "Hello") as url:
        result = check("--url", url)
    assert "the site requires none" in result.stdout
    assert result.exit_code == 0


def test_a_site_by_its_url_alone() -> None:
    with answering('{"code":0}', "Hello") as url:
        result = check(url, GPROCHAT_URL="http://127.0.0.1:9")
    assert (result.stdout.splitlines()[0], result.exit_code) == (url, 0)


@pytest.mark.parametrize("configured", [False, True])
def test_a_model(configured: bool, backend: str, tmp_path: Path) -> None:
    reply = event(openai("Hello", "stop")).decode()
    file = tmp_path / "config.toml"
    with answering("", reply, "text/event-stream") as url:
        text = f"[models.m]\nkind = 'openai'\nname = 'llama3.2'\nbase_url = '{url}'\n"
        file.write_text(text)
        kind = ("--model=openai", "--model-name=llama3.2", f"--base-url={url}")
        arguments = ("-m", "m") if configured else kind
        result = check(backend, *arguments, GPROCHAT_CONFIG=str(file))
    steps = [line.split()[:2] for line in result.stdout.splitlines()]
    assert steps == [[url], ["ok", "name"], ["ok", "TCP"], ["ok", "key,"]]
    assert "first text of llama3.2 after 0." in last_line(result)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_model_whose_key_is_missing() -> None:
    result = check("--model=gemini", GEMINI_API_KEY="")
    assert last_line(result).startswith("FAILED  settings    --model gemini needs a key")
    assert result.exit_code == 2


def test_not_a_site() -> None:
    with answering("<html>") as url:
        result = check("--url", url)
    assert result.exit_code == 8
    assert last_line(result).startswith("FAILED  password")


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_a_models_api_instead_of_a_site(kind: str) -> None:
    with answering("", kind=kind, error=404) as url:
        result = check(f"{url}/v1")
        of_api = check("-mopenai", "--model-name=x", f"--base-url={url}/v1")
    assert last_line(result).startswith("FAILED  password")
    hint = "; if this is a server with OpenAI's API, give --model openai and --base-url"
    assert last_line(result).endswith(hint)
    assert "--base-url" not in last_line(of_api)


def test_a_site_that_hangs(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = check(backend, url, "--timeout-first-chunk=0.05")
    assert result.exit_code == 4
    assert " within 0.05 s (--timeout-first-chunk): " in last_line(result)


def test_an_error_of_the_site() -> None:
    with answering('{"code":0}') as url:
        result = check("--url", url)
    assert result.exit_code == 7
    assert "\x1b" not in result.stdout


def test_no_connection(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    result = check(backend, f"--url=http://127.0.0.1:{port}")
    assert result.exit_code == 3
    assert "FAILED  TCP" in last_line(result)
    assert "firewall" in last_line(result)


@pytest.mark.parametrize("error", [OSError(-2, "Name or service not known"), UnicodeError("long")])
def test_no_such_name(monkeypatch: pytest.MonkeyPatch, error: Exception, backend: str) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(anyio, "getaddrinfo", fail)
    result = check(backend, "--url=https://chat.example.org")
    assert result.exit_code == 3
    assert "FAILED  name        chat.example.org was not found: " in last_line(result)


def test_a_name_has_addresses() -> None:
    with answering("") as url:
        said = check(f"--url={url.replace('127.0.0.1', 'localhost')}").stdout
    assert "ok      name        localhost is 127.0.0.1" in said


def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    async def hang(*_: Any, **__: Any) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(anyio, "getaddrinfo", hang)
    result = check(backend, "--url=https://chat.example.org", "--timeout-connect=0.05")
    assert result.exit_code == 4
    assert "no response from the name server within 0.05 s" in last_line(result)


class TestTLS:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def server(self, authority: trustme.CA) -> Iterator[str]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with answering('{"code":0}', "Hello", tls=context) as url:
            yield url

    def test_of_an_unknown_authority(self, server: str, backend: str) -> None:
        result = check(backend, "--url", server)
        assert result.exit_code == 3
        assert "FAILED  TLS" in last_line(result)
        assert "SSL_CERT_FILE" in last_line(result)

    def test_of_a_port_that_does_not_speak_it(self, backend: str) -> None:
        with answering('{"code":0}', "Hello") as url:
            result = check(backend, "--url", url.replace("http", "https"))
        assert result.exit_code == 3
        assert "nothing speaks TLS there; check the port, or try http://" in last_line(result)

    def test_of_a_known_one(
        self, server: str, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, backend: str
    ) -> None:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        monkeypatch.setattr(_tls, "default_ssl_context", lambda: context)
        result = check(backend, "--url", server)
        assert "ok      TLS         TLSv1.3, with a valid certificate until " in result.stdout
        assert result.exit_code == 0


def test_a_proxy_is_the_first_step() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    result = check("--url=https://chat.example.org", f"--proxy=http://127.0.0.1:{port}")
    assert "; check the URL of the proxy, and whether it is up" in last_line(result)
    assert "ok      name        the proxy 127.0.0.1 is an address, not a name" in result.stdout
    assert "FAILED  TCP" in last_line(result)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no site to check: give its URL"),
        (["http://x", "--url=http://y"], "give URL or --url, not both"),
        (["http://x", "--model=gemini"], "give the address of a model's API as --base-url"),
        (["--url=http://x", "--site=y"], "no site 'y'"),
        (["--model=echo"], "'echo' is not one of gemini, openai, nor a configured model"),
        (["--url=http://x", "--site=y", "--site=z"], "no site 'z'"),
    ],
)
def test_targets_that_cannot_be_checked(arguments: list[str], said: str) -> None:
    result = check(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_one_site_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gprochat_anyio.cli._sites.chosen_sites", lambda *_: [None, None])
    assert "not both" in check().stderr


def test_an_invalid_setting() -> None:
    result = check("--url=chat.example.org")
    assert result.exit_code == 2
    assert result.stdout.startswith("FAILED  settings    url must be")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(PipeClosedError(), 0, ""), (OSError(28, "disk full"), 1, "gprochat: disk full\n")],
)
def test_an_output_that_fails(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, said: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Output, "write", fail)
    result = check("--url=http://127.0.0.1:9")
    assert (result.exit_code, result.stderr) == (status, said)
