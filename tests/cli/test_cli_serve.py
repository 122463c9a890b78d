"""`gprochat serve`."""

from __future__ import annotations

import socket
import sys

import anyio
import httpx
import pytest
from click.testing import CliRunner, Result
from support.raw_site import environment, running

from gprochat_anyio import AuthenticationError, Client
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError

BACKENDS = ["asyncio", "trio"]
pytestmark = pytest.mark.usefixtures("clean_environment")


def serve(*arguments: str) -> Result:
    return CliRunner().invoke(gprochat, ["serve", *arguments])


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (["--password=one", "--password=two words", "--secret-key=k"], {}),
        ([], {"GPROCHAT_PASSWORD": "two words", "GPROCHAT_SECRET_KEY": "k"}),
    ],
)
def test_serves_at_the_url_it_prints(
    backend: str, options: list[str], variables: dict[str, str]
) -> None:
    async def ask(url: str, password: str) -> str:
        async with Client(url, secret_key="k", password=password, trust_env=False) as client:
            return (await client.ask("Hello")).text

    arguments = ["serve", "--port=0", f"--backend={backend}", *options]
    with running(*arguments, env=environment(**variables)) as process:
        assert process.stdout
        url = process.stdout.readline().decode().strip()
        assert anyio.run(ask, url, "two words").endswith("You said: Hello")
        with pytest.raises(AuthenticationError):
            anyio.run(ask, url, "two")


@pytest.mark.slow
@pytest.mark.parametrize(("options", "status"), [([], 200), (["--no-page"], 404)])
def test_the_chat_page_can_be_left_out(options: list[str], status: int) -> None:
    with running("serve", "--port=0", *options, env=environment()) as process:
        assert process.stdout
        url = process.stdout.readline().decode().strip()
        assert httpx.get(url, trust_env=False).status_code == status


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_port_in_use_is_an_error(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = serve(f"--port={port}", f"--backend={backend}")
    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr.startswith(f"gprochat: cannot listen on 127.0.0.1, port {port}: ")
    assert result.stderr.endswith("; choose another --port or --host\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_whole_network_needs_a_password(backend: str) -> None:
    result = serve("--host=0.0.0.0", "--port=0", f"--backend={backend}")
    assert (result.stdout, result.exit_code) == ("", 2)
    assert result.stderr.startswith("gprochat: ")


@pytest.mark.parametrize("arguments", [["--port=65536"], ["--port=http"], ["extra"]])
def test_usage(arguments: list[str]) -> None:
    assert serve(*arguments).exit_code == 2


def test_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gprochat_anyio.site", None)
    result = serve("--port=0")
    assert result.exit_code == 1
    assert result.stderr.startswith("gprochat: ")


@pytest.fixture
def served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the site by one that ends as soon as it is served."""

    async def once(*, task_status: anyio.abc.TaskStatus[str], **_: object) -> None:
        task_status.started("http://127.0.0.1:1")

    monkeypatch.setattr("gprochat_anyio.site.serve", once)


@pytest.mark.usefixtures("served_once")
def test_the_url_is_all_of_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPROCHAT_PASSWORD", "word")
    result = serve("--port=0")
    assert (result.stdout, result.exit_code) == ("http://127.0.0.1:1\n", 0)


@pytest.mark.usefixtures("served_once")
def test_a_closed_stdout_does_not_end_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(self: Output, text: str) -> None:
        raise PipeClosedError

    monkeypatch.setattr(Output, "write", closed)
    result = serve("--port=0")
    assert result.exit_code == 0
    assert "gprochat: serving at http://127.0.0.1:1\n" in result.stderr
