"""`gprochat models`: configured models, and those that servers offer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.model_servers import answer
from support.raw_site import RawSite, raw_site, sending

from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError

OFFERED = {"object": "list", "data": [{"id": "llama3.2"}, {"id": "qwen3:8b"}]}


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch(0o600)
    monkeypatch.setenv("GPROCHAT_CONFIG", str(path))
    return path


@pytest.fixture
def server() -> Iterator[RawSite]:
    with raw_site(sending(answer(200, OFFERED))) as server:
        yield server


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return f"--backend={request.param}"


def models(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(gprochat, ["models", *arguments], env=env)


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


class TestConfigured:
    @pytest.fixture(autouse=True)
    def _configured(self, file: Path) -> None:
        file.write_text(
            'default = "fast"\n[models.fast]\nkind = "openai"\nname = "llama3.2"\n'
            'base_url = "http://h:1/v1"\napi_key = "s3cret"\n'
            '[models.g]\nkind = "gemini"\n'
            '[sites.work]\nurl = "https://w"\npassword = "s3cret"\nproxy = "http://u:s3cret@p"\n'
            '[fleets.all]\nsites = ["work", "fast"]\n'
        )

    def test_is_listed(self) -> None:
        result = models()
        assert result.stdout == (
            "  work  gprochat  -         https://w\n"
            "  all   fleet     -         work, fast\n"
            "* fast  openai    llama3.2  http://h:1/v1\n"
            "  g     gemini    -         https://generativelanguage.googleapis.com\n"
        )
        assert (result.stderr, result.exit_code) == ("", 0)

    def test_as_json(self) -> None:
        result = models("--json")
        assert "s3cret" not in result.output
        work, fleet, fast, _ = objects(result)
        assert work == {
            "name": "work",
            "kind": "gprochat",
            "model": None,
            "url": "https://w",
            "members": None,
            "default": False,
        }
        assert (fleet["kind"], fleet["members"], fleet["url"]) == ("fleet", ["work", "fast"], None)
        assert (fast["model"], fast["default"]) == ("llama3.2", True)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://me:s3cret@h/v1?key=s3cret#s3cret", "https://h/v1"),
            ("http://s3cret@[::1", "an invalid address"),
        ],
    )
    def test_shows_no_secret_of_an_address(self, file: Path, url: str, shown: str) -> None:
        file.write_text(f'[models.a]\nkind = "openai"\nname = "m"\nbase_url = "{url}"\n')
        for result in (models(), models("--json"), models("--remote")):
            assert "s3cret" not in result.output
        assert objects(models("--json"))[0]["url"] == shown

    def test_can_be_one_alone(self) -> None:
        assert models("-m", "fast").stdout == "* fast  openai  llama3.2  http://h:1/v1\n"
        assert "'slow' is not one of" in models("-m", "slow").stderr

    def test_ends_quietly_without_a_reader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def write(*_: object) -> None:
            raise PipeClosedError

        monkeypatch.setattr(Output, "write", write)
        result = models()
        assert (result.stderr, result.exit_code) == ("", 0)

    def test_that_cannot_be_written_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def write(*_: object) -> None:
            raise OSError(28, "disk full")

        monkeypatch.setattr(Output, "write", write)
        result = models()
        assert (result.stderr, result.exit_code) == ("gprochat: disk full\n", 1)


@pytest.mark.parametrize("arguments", [[], ["--remote"], ["--remote", "--json"]])
def test_nothing_is_configured(file: Path, arguments: list[str]) -> None:
    result = models(*arguments)
    said = f"gprochat: no models are configured: add [models.NAME] to {file}\n"
    assert (result.stdout, result.stderr, result.exit_code) == ("", said, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--base-url=http://x"], "--base-url needs its kind: give --model gemini or openai"),
        (["-m", "echo"], "'echo' is not one of gemini, openai"),
    ],
)
def test_invalid_options(arguments: list[str], said: str) -> None:
    result = models(*arguments)
    assert (result.stdout, result.exit_code) == ("", 2)
    assert said in result.stderr


class TestRemote:
    def test_servers_of_the_configuration(self, file: Path, server: RawSite, backend: str) -> None:
        file.write_text(
            f'[models.fast]\nkind = "openai"\nname = "m"\nbase_url = "{server.url}/v1"\n'
            f'api_key = "sk-fast"\n[models.also]\nkind = "openai"\nname = "m"\n'
            f'base_url = "{server.url}"\n[sites.work]\nurl = "http://127.0.0.1:9"\n'
        )
        result = models("--remote", backend)
        assert result.stdout == ("fast  llama3.2\nfast  qwen3:8b\nalso  llama3.2\nalso  qwen3:8b\n")
        assert (result.stderr, result.exit_code) == ("", 0)
        paths = {head.split()[1] for head in server.heads}
        assert paths == {"/v1/models", "/models"}
        assert sum("Bearer sk-fast" in head for head in server.heads) == 1

    def test_one(self, file: Path, server: RawSite, backend: str) -> None:
        file.write_text(
            f'[models.fast]\nkind = "openai"\nname = "m"\nbase_url = "{server.url}"\n'
            '[models.down]\nkind = "openai"\nname = "m"\nbase_url = "http://127.0.0.1:9"\n'
        )
        assert models("--remote", "-m", "fast", backend).stdout == "llama3.2\nqwen3:8b\n"
        assert objects(models("--remote", "-m", "fast", "--json")) == [
            {"name": "fast", "models": ["llama3.2", "qwen3:8b"], "error": None}
        ]

    def test_a_kind_without_a_configuration(self, server: RawSite) -> None:
        result = models("--remote", "-m", "openai", "--base-url", server.url)
        assert (result.stdout, result.exit_code) == ("llama3.2\nqwen3:8b\n", 0)

    def test_gemini(self) -> None:
        methods = {"supportedGenerationMethods": ["generateContent"]}
        body = {"models": [{"name": "models/gemini-2.5-pro", **methods}, {"name": "models/e"}]}
        with raw_site(sending(answer(200, body))) as server:
            arguments = ("--remote", "-m", "gemini", "--base-url", server.url)
            assert models(*arguments, GEMINI_API_KEY="k").stdout == "gemini-2.5-pro\n"
        result = models(*arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("gprochat: gemini: --model gemini needs a key")

    def test_failures_leave_the_others_alone(
        self, file: Path, server: RawSite, backend: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        refusal = answer(401, {"error": {"message": "bad sk-canary"}})
        with raw_site(sending(refusal)) as refusing:
            file.write_text(
                f'[models.down]\nkind = "openai"\nname = "m"\nbase_url = "{url}"\n'
                f'[models.closed]\nkind = "openai"\nname = "m"\nbase_url = "{refusing.url}"\n'
                f'api_key = "sk-canary"\n'
                f'[models.fast]\nkind = "openai"\nname = "m"\nbase_url = "{server.url}"\n'
            )
            result = models("--remote", backend)
            told = models("--remote", "--json")
        assert result.stdout == "fast  llama3.2\nfast  qwen3:8b\n"
        down, closed = result.stderr.splitlines()
        assert down.startswith(f"gprochat: down: could not connect to {url[7:]}")
        assert closed.startswith("gprochat: closed: the model's server refused the API key")
        assert closed.endswith("; the key of [models.closed] is its api_key")
        assert result.exit_code == 3
        assert "sk-canary" not in result.output + told.output
        assert [o["error"] and o["error"]["type"] for o in objects(told)] == [
            "SiteConnectionError",
            "AuthenticationError",
            None,
        ]

    def test_a_proxy(self, file: Path, server: RawSite) -> None:
        file.write_text('[models.a]\nkind = "openai"\nname = "m"\nbase_url = "http://x.invalid"\n')
        assert models("--remote", f"--proxy={server.url}").stdout.startswith("a  llama3.2")
        assert models("--remote", "-m", "a", f"--proxy={server.url}").exit_code == 0
        assert server.heads[0].startswith("GET http://x.invalid/models HTTP/1.1\r\n")

    def test_control_characters_are_escaped(self, file: Path) -> None:
        with raw_site(sending(answer(200, {"data": [{"id": "a\x1b[2J\nb"}]}))) as server:
            result = models("--remote", "-m", "openai", f"--base-url={server.url}")
        assert result.stdout == "a [2J b\n"
