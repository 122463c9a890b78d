"""`--model`, of `gprochat ask` and `gprochat serve`, and a site in service."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from click.testing import CliRunner, Result
from support.embedded_site import ROOT
from support.model_servers import END as LAST
from support.model_servers import HEAD as EVENTS
from support.model_servers import answer, chunk, event, gemini, openai, stream
from support.raw_site import (
    BOUND,
    END,
    HEAD,
    Exchange,
    environment,
    failing,
    raw_site,
    replying,
    running,
    sending,
)

from gprochat_anyio import Client, RateLimitError, Retry
from gprochat_anyio.cli._inside import opened_client
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._serve import serve
from gprochat_anyio.cli._site import Site

BACKENDS = ["asyncio", "trio"]
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture(autouse=True)
def _no_keys(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(gprochat, arguments, input="", env=env)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return f"--backend={request.param}"


@contextmanager
def held_site() -> Iterator[tuple[str, Callable[[], None]]]:
    """Run a site that sends "first", and then "last" once it is released."""
    go_on = threading.Event()

    def held(exchange: Exchange) -> None:
        exchange.send(HEAD)
        exchange.text("first")
        assert go_on.wait(BOUND)
        exchange.text("last")
        exchange.send(END)

    with raw_site(held) as site:
        try:
            yield site.url, go_on.set
        finally:
            go_on.set()


class TestAsk:
    def test_echo(self, backend: str) -> None:
        result = run("ask", "--model=echo", "Hello you", backend, GPROCHAT_URL="http://127.0.0.1:9")
        assert (result.stdout, result.stderr, result.exit_code) == ("Hello you\n", "", 0)

    def test_offline(self, backend: str) -> None:
        result = run("ask", "--model=offline", "Hello", backend)
        assert result.stdout.endswith("You said: Hello\n")
        assert (result.stderr, result.exit_code) == ("", 0)

    def test_openai(self, backend: str) -> None:
        whole = sending(stream(openai("Hel"), openai("lo", "stop"), "[DONE]"))
        with raw_site(whole) as site:
            result = run(
                *("ask", "--model=openai", "--model-name=llama3.2", "--base-url", site.url, "Hi"),
                backend,
            )
        assert (result.stdout, result.stderr, result.exit_code) == ("Hello\n", "", 0)

    def test_gemini(self, backend: str) -> None:
        with raw_site(sending(stream(gemini("Hel"), gemini("lo", "STOP")))) as site:
            arguments = ("ask", "--model=gemini", "--base-url", site.url, "Hi", backend)
            result = run(*arguments, GEMINI_API_KEY="key\n")
        assert (result.stdout, result.stderr, result.exit_code) == ("Hello\n", "", 0)

    @pytest.mark.parametrize(
        ("body", "status", "said"),
        [
            (answer(401, {"error": {"message": "Incorrect key: sk-made-up"}}), 5, "OPENAI_API_KEY"),
            (answer(429, {"error": {"message": "slow down"}}), 6, "slow down"),
            (answer(404, {"error": {"message": "no such model"}}), 7, "no such model"),
            (EVENTS + chunk(event(openai("half"))) + LAST, 9, "broke off"),
        ],
    )
    def test_failures(self, body: bytes, status: int, said: str, backend: str) -> None:
        with raw_site(sending(body)) as site:
            result = run(
                *("ask", "--model=openai", "--model-name=m", "--base-url", site.url, "Hi", backend),
                OPENAI_API_KEY="sk-made-up",
            )
        assert result.exit_code == status
        assert said in result.stderr
        assert "sk-made-up" not in result.output
        assert result.stdout == ("half\n" if status == 9 else "")

    def test_nothing_listens(self, backend: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        result = run("ask", "--model=openai", "--model-name=m", "--base-url", url, "Hi", backend)
        assert result.exit_code == 3
        assert f"could not connect to {url.split('/')[2]}" in result.stderr
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--model=gemini"], "GEMINI_API_KEY"),
            (["--model=openai"], "--model-name"),
            (["--model=openai", "--model-name=m"], "OPENAI_API_KEY"),
            (["--model=openai", "--model-name=m", "--base-url=ftp://x"], "base_url"),
            (["--model=echo", "--model-name=m"], "takes no --base-url"),
            (["--model=echo", "--proxy=http://127.0.0.1:9"], "takes no --base-url"),
            (["--model=gprochat"], "not one of"),
            (["--model-name=m"], "--model"),
            (["--model=echo", "--site=x"], "--model and --site exclude each other"),
        ],
    )
    def test_invalid_settings(self, arguments: list[str], said: str) -> None:
        result = run("ask", "Hi", *arguments)
        assert result.exit_code == 2
        assert said in result.stderr

    @pytest.mark.parametrize(
        "env",
        [{"OPENAI_API_KEY": "sk-made-up"}, {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}],
    )
    def test_openai_itself_is_the_default(
        self, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[str] = []

        def made_of(url: str, **_: object) -> None:
            made.append(url)
            raise ValueError("enough")

        monkeypatch.setattr("gprochat_anyio.Client.openai", made_of)
        run("ask", "Hi", "--model=openai", "--model-name=m", **env)
        assert made == [env.get("OPENAI_BASE_URL", "https://api.openai.com/v1")]


@pytest.mark.parametrize("model", [None, "echo"])
async def test_a_model_has_time_to_think(model: str | None) -> None:
    async with opened_client(Site(None, model=model, timeouts={"idle": 5.0})) as client:
        limits = client.timeouts
        assert (limits.connect, limits.first_chunk, limits.idle, limits.total) == (10, 300, 5, inf)


class TestServe:
    @pytest.mark.slow
    def test_a_gateway(self, backend: str) -> None:
        async def ask(url: str) -> str:
            async with Client(url, trust_env=False) as client:
                return (await client.ask("Hello")).text

        with raw_site(replying("from ", "behind")) as site:
            env = environment(
                GPROCHAT_UPSTREAM_SECRET_KEY="k", GPROCHAT_UPSTREAM_PASSWORD="two words"
            )
            arguments = ("serve", "--port=0", backend, "--model=gprochat", "--url", site.url)
            with running(*arguments, env=env) as process:
                assert process.stdout
                url = process.stdout.readline().decode().strip()
                assert anyio.run(ask, url) == "from behind"
        assert site.bodies[0]["pass"] == "two words"

    @pytest.mark.slow
    def test_a_gateway_passes_rate_limits_on(self) -> None:
        async def ask(url: str) -> None:
            async with Client(url, trust_env=False, retry=Retry(attempts=1)) as client:
                await client.ask("Hello")

        with raw_site(failing(500, "[429 Too Many Requests] slow")) as site:
            env = environment(GPROCHAT_UPSTREAM_URL=site.url)
            with running("serve", "--port=0", "--model=gprochat", env=env) as process:
                assert process.stdout
                url = process.stdout.readline().decode().strip()
                with pytest.raises(RateLimitError):
                    anyio.run(ask, url)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--model=gprochat"], "--url"),
            (["--model=gprochat", "--url=http://127.0.0.1:9", "--model-name=m"], "--model-name"),
            (["--model=gprochat", "--url=x"], "absolute URL"),
            (["--model=echo", "--base-url=http://127.0.0.1:9"], "takes no --base-url"),
            (["--model=echo", "--url=http://127.0.0.1:9"], "--url is the site of --model gprochat"),
            (["--model=gprochat", "--base-url=http://x"], "give its address as --url"),
            (["--max-at-once=0"], "--max-at-once"),
            (["--body-limit=0"], "--body-limit"),
            (["--grace=-1"], "--grace"),
            (["--keyfile=pyproject.toml"], "--certfile"),
            (["--certfile=pyproject.toml"], "cannot use the certificate"),
            (["--certfile=missing.pem"], "--certfile"),
        ],
    )
    def test_invalid_settings(
        self, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("pyproject.toml").write_text("no PEM\n", encoding="utf-8")
        result = run("serve", "--port=0", *arguments)
        assert result.exit_code == 2
        assert said in result.stderr

    @pytest.mark.slow
    def test_https_with_a_log(self, backend: str, tmp_path: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        issued.cert_chain_pems[0].write_to_path(pem)
        issued.private_key_pem.write_to_path(key)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)

        async def ask(url: str) -> str:
            async with Client(url, ssl_context=trusting, trust_env=False) as client:
                return (await client.ask("secret words")).text

        arguments = ["--access-log", f"--certfile={pem}", f"--keyfile={key}", "--model=echo"]
        with running("serve", "--port=0", backend, *arguments) as process:
            assert process.stdout
            assert process.stderr
            url = process.stdout.readline().decode().strip()
            assert url.startswith("https://127.0.0.1:")
            assert process.stderr.readline() == b"gprochat: Ctrl-C stops it\n"
            assert anyio.run(ask, url) == "secret words"
            line = process.stderr.readline().decode()
        day, time, rest = line.split(" ", 2)
        assert (len(day), len(time)) == (10, 8), "a usual line fits 80 columns"
        assert rest.startswith('127.0.0.1 "POST /api/generate" 200 12 bytes ')
        assert "secret" not in line

    @pytest.mark.slow
    @posix
    def test_sigterm_lets_replies_end(self, backend: str) -> None:
        with held_site() as (url, go_on):
            arguments = ("serve", "--port=0", backend, "--model=gprochat", "--url", url)
            with running(*arguments) as process, socket.socket() as client:
                assert process.stdout
                at = process.stdout.readline().decode().strip()
                client.settimeout(BOUND)
                client.connect(("127.0.0.1", int(at.rpartition(":")[2])))
                body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": True})
                client.sendall(
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Content-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body.encode())
                )
                got = b""
                while b"first" not in got:
                    piece = client.recv(4096)
                    assert piece, got
                    got += piece
                process.send_signal(signal.SIGTERM)
                go_on()
                while part := client.recv(4096):
                    got += part
                assert b'"last"' in got
                assert got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
                assert process.wait(BOUND) == 0

    @pytest.mark.slow
    @posix
    def test_sigterm_with_nothing_to_do(self, backend: str) -> None:
        with running("serve", "--port=0", backend) as process:
            assert process.stdout
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(BOUND) == 0


class TestServeInThisProcess:
    """`gprochat serve` with a replaced `site.serve`."""

    @pytest.fixture(autouse=True)
    def served(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
        calls: list[dict[str, Any]] = []

        async def serve(*, task_status: anyio.abc.TaskStatus[str], **given: Any) -> None:
            calls.append(given)
            task_status.started("http://127.0.0.1:1")

        monkeypatch.setattr("gprochat_anyio.site.serve", serve)
        log = logging.getLogger("gprochat_anyio.site.access")
        before = log.level, list(log.handlers)
        yield calls
        log.setLevel(before[0])
        log.handlers[:] = before[1]

    def test_its_models(self, backend: str) -> None:
        for arguments in (
            ["--model=gprochat", "--url=http://127.0.0.1:9"],
            ["--model=openai", "--base-url=http://127.0.0.1:9", "--model-name=m"],
            ["--model=gemini", "--model-name=gemini-2.5-pro"],
            [],
        ):
            result = run("serve", backend, *arguments, GEMINI_API_KEY="key")
            assert (result.stdout, result.exit_code) == ("http://127.0.0.1:1\n", 0)

    def test_its_certificate_and_its_log(
        self, backend: str, tmp_path: Path, served: list[dict[str, Any]]
    ) -> None:
        both = tmp_path / "both.pem"
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
        run("serve", backend, f"--certfile={both}", "--access-log", "--grace=5")
        (given,) = served
        assert isinstance(given["ssl_context"], ssl.SSLContext)
        assert given["grace"] == 5
        assert logging.getLogger("gprochat_anyio.site.access").isEnabledFor(logging.INFO)

    @posix
    def test_sigterm_asks_it_to_end(self, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async def serve(
            *, until: anyio.Event, task_status: anyio.abc.TaskStatus[str], **_: object
        ) -> None:
            task_status.started("http://127.0.0.1:1")
            os.kill(os.getpid(), signal.SIGTERM)
            with anyio.fail_after(BOUND):
                await until.wait()

        monkeypatch.setattr("gprochat_anyio.site.serve", serve)
        assert run("serve", backend).exit_code == 0


@pytest.mark.parametrize(
    ("file", "before"), [("gprochat.service", "ExecStart="), ("Containerfile", "ENTRYPOINT ")]
)
def test_the_deployment_examples_use_existing_options(file: str, before: str) -> None:
    text = (ROOT / "examples" / "deploy" / file).read_text(encoding="utf-8").replace("\\\n", "")
    (line,) = (line.removeprefix(before) for line in text.splitlines() if line.startswith(before))
    _, command, *arguments = json.loads(line) if line.startswith("[") else shlex.split(line)
    assert command == "serve"
    assert serve.make_context("serve", arguments).params["access_log"]
