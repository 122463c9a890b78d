"""Models of the configuration file, and the commands that ask them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from math import inf
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result
from support.model_servers import answer, gemini, openai, stream
from support.raw_site import Exchange, RawSite, environment, raw_site, replying, running, sending

from gprochat_anyio import Client, Fleet
from gprochat_anyio.cli._config import read_config
from gprochat_anyio.cli._config_file import ConfigError
from gprochat_anyio.cli._database import store_path
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._model import GOOGLE
from gprochat_anyio.cli._sites import named_site
from gprochat_anyio.cli._store import Kept, Store

KEYS = {"OPENAI_API_KEY": "sk-of-openai", "GEMINI_API_KEY": "key-of-google", "FAST_KEY": "sk-fast"}


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch(0o600)
    monkeypatch.setenv("GPROCHAT_CONFIG", str(path))
    return path


def saying(exchange: Exchange) -> None:
    """Reply as a server of both APIs, with the number of messages and the key."""
    if "contents" in exchange.body:
        exchange.send(stream(gemini("Hel"), gemini("lo", "STOP")))
    else:
        count = len(exchange.body["messages"])
        exchange.send(stream(openai(f"{count}: "), openai("ok", "stop")))


@pytest.fixture
def server() -> Iterator[RawSite]:
    with raw_site(saying) as server:
        yield server


@pytest.fixture
def fast(file: Path, server: RawSite) -> RawSite:
    file.write_text(
        f'default = "fast"\n[models.fast]\nkind = "openai"\nname = "llama3.2"\n'
        f'base_url = "{server.url}/v1"\nsystem = "Be brief."\nfields = {{ temperature = 0 }}\n'
        "timeouts = { idle = 5 }\n"
    )
    return server


def run(*arguments: str, lines: str = "", **env: str) -> Result:
    return CliRunner().invoke(gprochat, arguments, input=lines, env=env)


class TestFile:
    def test_is_read(self, file: Path) -> None:
        file.write_text(
            '[models.fast]\nkind = "openai"\nname = "m"\nbase_url = "http://h/v1"\n'
            'key_env = "FAST_KEY"\nsystem = "s"\nproxy = "http://p:1"\ntimeouts = { idle = 5 }\n'
            '[models.fast.fields]\nseed = 1\n[models.g]\nkind = "gemini"\napi_key = "sk-x"\n'
        )
        config = read_config()
        fast, g = config.models.values()
        assert config.names == ("fast", "g")
        assert fast._asdict() == {
            "title": "fast",
            "kind": "openai",
            "name": "m",
            "base_url": "http://h/v1",
            "key_env": "FAST_KEY",
            "api_key": None,
            "system": "s",
            "fields": {"seed": 1},
            "proxy": "http://p:1",
            "timeouts": {"idle": 5},
        }
        assert (g.label, g.name, g.base_url, g.key()) == ("gemini", None, None, "sk-x")
        assert repr(g) == "<NamedModel g>"

    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ("models = 1", 1, r"models must be tables: \[models.NAME\]"),
            ("[models]\na = 1", 2, r"a model is a table: \[models.a\]"),
            ("[models.a]\nkind = 'openai'\nmodel = 'm'", 3, "unknown key 'model'; known are kind"),
            ("[models.a]\nname = 'm'", 1, 'kind must be "openai" or "gemini"'),
            ("[models.a]\nname = 'm'\nkind = 'claude'", 3, 'kind must be "openai" or "gemini"'),
            ("[models.a]\nkind = 'gprochat'", 2, r"belongs in a table \[sites.NAME\]"),
            ("[models.a]\nkind = 1", 2, "kind must be a text"),
            ("[models.a]\nkind = 'openai'", 1, "needs a name, one of the server's models"),
            ("[models.echo]\nkind = 'gemini'", 1, "echo is a kind of --model; give"),
            ("[models.a]\nkind = 'gemini'\nfields = 1", 3, "fields must be a table"),
            ("[models.a]\nkind = 'gemini'\ntimeouts = { idel = 5 }", 3, "unknown key 'idel'"),
            (
                "[models.a]\nkind = 'gemini'\nkey_env = 'K'\napi_key = 'k'",
                4,
                "give key_env or api_key, not both",
            ),
            (
                "[sites.a]\nurl = 'u'\n[models.a]\nkind = 'gemini'",
                3,
                "a is a site already; give the model another name",
            ),
            (
                "[models.a]\nkind = 'gemini'\n[fleets.a]\nsites = ['a']",
                3,
                "a is a model already; give the fleet another name",
            ),
            (
                "default = 'x'\n[models.a]\nkind = 'gemini'",
                1,
                r"there is no \[sites.x\], \[fleets.x\] or \[models.x\]",
            ),
            (
                "[fleets.a]\nsites = ['x']",
                2,
                r"there is no \[sites.x\], and no \[models.x\]",
            ),
        ],
    )
    def test_errors_name_the_line(self, file: Path, text: str, line: int, said: str) -> None:
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"config.toml, line {line}: .*{said}"):
            read_config()

    @pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
    @pytest.mark.parametrize(("key", "warned"), [("api_key", 1), ("proxy", 1), ("key_env", 0)])
    def test_with_secrets_is_for_its_owner(
        self, file: Path, capsys: pytest.CaptureFixture[str], key: str, warned: int
    ) -> None:
        file.write_text(f"[models.a]\nkind = 'gemini'\n{key} = 's3cret'\n")
        file.chmod(0o644)
        read_config()
        err = capsys.readouterr().err
        assert err.count("chmod 600") == warned
        assert "s3cret" not in err


class TestKeys:
    """The environment's keys, each of which is sent only to its own server."""

    @pytest.mark.parametrize(
        ("text", "key"),
        [
            ("kind = 'openai'", "sk-of-openai"),
            ("kind = 'openai'\nbase_url = 'https://API.openai.com/v1/'", "sk-of-openai"),
            ("kind = 'openai'\nbase_url = 'http://api.openai.com/v1'", None),
            ("kind = 'openai'\nbase_url = 'https://api.openai.com.example.org/v1'", None),
            ("kind = 'openai'\nbase_url = 'https://api.openai.com@example.org/v1'", None),
            ("kind = 'openai'\nbase_url = 'https://openrouter.ai/api/v1'", None),
            ("kind = 'openai'\nbase_url = 'http://[::1'", None),
            ("kind = 'openai'\nbase_url = 'https://x/v1'\nkey_env = 'FAST_KEY'", "sk-fast"),
            ("kind = 'openai'\nbase_url = 'https://x/v1'\napi_key = 'sk-file'", "sk-file"),
            ("kind = 'openai'\napi_key = 'sk-file'", "sk-file"),
            ("kind = 'gemini'", "key-of-google"),
            ("kind = 'gemini'\nbase_url = 'https://x'\nkey_env = 'FAST_KEY'", "sk-fast"),
            (f"kind = 'openai'\nbase_url = '{GOOGLE}/v1beta/openai'", "key-of-google"),
        ],
    )
    def test_go_to(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, text: str, key: str | None
    ) -> None:
        for name, value in KEYS.items():
            monkeypatch.setenv(name, f" {value}\n")
        file.write_text(f"[models.a]\nname = 'm'\n{text}\n")
        assert read_config().models["a"].key() == key

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("kind = 'openai'", "[models.a] needs its key: set OPENAI_API_KEY"),
            ("kind = 'gemini'", "[models.a] needs its key: set GEMINI_API_KEY"),
            (
                "kind = 'openai'\nbase_url = 'http://127.0.0.1:9'\nkey_env = 'FAST_KEY'",
                "[models.a] needs its key: set FAST_KEY",
            ),
            (
                "kind = 'gemini'\nbase_url = 'http://127.0.0.1:9'",
                "[models.a] has an address of its own and no key; give its key_env or api_key",
            ),
        ],
    )
    def test_that_are_missing(self, file: Path, text: str, said: str) -> None:
        file.write_text(f"[models.a]\nname = 'm'\n{text}\n")
        result = run("ask", "-m", "a", "Hi")
        assert (result.stdout, result.stderr, result.exit_code) == ("", f"gprochat: {said}\n", 2)

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            ("", "[models.a] has no key: give its key_env or api_key"),
            ("key_env = 'FAST_KEY'", "the key of [models.a] is in FAST_KEY"),
            ("api_key = 'sk-fast'", "the key of [models.a] is its api_key"),
        ],
    )
    def test_that_are_refused_say_where_they_come_from(
        self, file: Path, key: str, said: str
    ) -> None:
        with raw_site(sending(answer(401, {"error": {"message": "bad sk-fast"}}))) as server:
            file.write_text(
                f"[models.a]\nname = 'm'\nkind = 'openai'\nbase_url = '{server.url}'\n{key}\n"
            )
            result = run("ask", "-m", "a", "Hi", **KEYS)
        assert result.exit_code == 5
        assert result.stderr.endswith(f"; {said}\n")
        assert "sk-" not in result.output


class TestAsk:
    @pytest.mark.parametrize("arguments", [["-m", "fast"], ["--site=fast"], []])
    def test_asks_it(self, fast: RawSite, arguments: list[str]) -> None:
        result = run("ask", *arguments, "Hi", "--system", "In verse.", **KEYS)
        assert (result.stdout, result.stderr, result.exit_code) == ("2: ok\n", "", 0)
        (body,) = fast.bodies
        assert (body["model"], body["temperature"]) == ("llama3.2", 0)
        assert body["messages"] == [
            {"role": "system", "content": "Be brief.\n\nIn verse."},
            {"role": "user", "content": "Hi"},
        ]
        assert "sk-" not in fast.heads[0]

    def test_asks_gemini(self, file: Path, server: RawSite) -> None:
        file.write_text(
            f"[models.g]\nkind = 'gemini'\nname = 'gemini-2.5-pro'\nbase_url = '{server.url}'\n"
            "key_env = 'FAST_KEY'\n"
        )
        assert run("ask", "-m", "g", "Hi", **KEYS).stdout == "Hello\n"
        assert "/models/gemini-2.5-pro:stream" in server.heads[0]
        assert "x-goog-api-key: sk-fast" in server.heads[0]

    def test_options_go_before_the_file(self, file: Path, fast: RawSite) -> None:
        with raw_site(sending(b"HTTP/1.1 502 E\r\nContent-Length: 0\r\n\r\n")) as proxy:
            text = file.read_text().replace("idle = 5", "idle = 5, total = 0")
            file.write_text(f"{text}proxy = '{proxy.url}'\n")
            assert "(--timeout-total)" in run("ask", "-m", "fast", "Hi").stderr
            result = run("ask", "-m", "fast", "Hi", "--timeout-total=10")
            assert result.exit_code == 8
            assert proxy.heads[0].startswith(f"POST {fast.url}/v1/chat")
            given = ("--timeout-total=10", f"--proxy={fast.url}")
            assert run("ask", "-m", "fast", "Hi", *given).stdout == "2: ok\n"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-m", "slow"], "'slow' is not one of offline, echo, gemini, openai, nor a model of"),
            (["-m", "slow"], ", which has fast; add [models.slow]"),
            (["-m", "home"], "--model: home is not a model but a site of"),
            (["-m", "all"], "--model: all is not a model but a fleet of"),
            (["-m", "fast", "--base-url=http://x"], "leave --base-url and --model-name out"),
            (["-m", "fast", "--model-name=m"], "leave --base-url and --model-name out"),
            (["-m", "fast", "--site=home"], "--model and --site exclude each other"),
            (["--site=slow"], "no site 'slow', only home, all, fast; add"),
        ],
    )
    def test_invalid_names_and_options(
        self, file: Path, fast: RawSite, arguments: list[str], said: str
    ) -> None:
        file.write_text(
            f"{file.read_text()}[sites.home]\nurl = 'http://127.0.0.1:9'\n"
            "[fleets.all]\nsites = ['home']\n"
        )
        result = run("ask", "Hi", *arguments)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert said in result.stderr

    def test_without_a_configuration(self) -> None:
        result = run("ask", "-m", "fast", "Hi")
        assert result.exit_code == 2
        assert ", which has none; add [models.fast]" in result.stderr


async def test_a_model_has_time_to_think(fast: RawSite) -> None:
    async with named_site(read_config(), "fast").client() as client:
        assert isinstance(client, Client)
        limits = client.timeouts
        assert (limits.connect, limits.first_chunk, limits.idle, limits.total) == (10, 300, 5, inf)


class TestFleet:
    def test_mixes_sites_and_models(self, file: Path, fast: RawSite, tmp_path: Path) -> None:
        with raw_site(replying("of the site")) as site:
            file.write_text(
                f"{file.read_text()}[models.g]\nkind = 'gemini'\napi_key = 'k'\n"
                f"[sites.home]\nurl = '{site.url}'\n"
                "[fleets.all]\nsites = ['home', 'fast']\n[fleets.more]\nsites = ['g', 'home']\n"
            )
            fleet = named_site(read_config(), "all", {"timeout_idle": 7.0})
            assert (fleet.label, fleet.url, fleet.inside) == (
                "all",
                f"{site.url} {fast.url}/v1",
                False,
            )
            client = fleet.client()
            assert isinstance(client, Fleet)
            assert [one.model for one in client.clients] == [None, "llama3.2"]
            assert [one.timeouts.idle for one in client.clients] == [7, 7]
            assert named_site(read_config(), "more").url == f"g {site.url}"
            out = tmp_path / "out.jsonl"
            (tmp_path / "in.txt").write_text("Hi\n" * 40)
            run("batch", str(tmp_path / "in.txt"), "--out", str(out), "--site=all", "--quiet")
            replies = {json.loads(line)["text"] for line in out.read_text().splitlines()}
            assert replies == {"of the site", "2: ok"}


class TestBatch:
    def test_asks_it(self, fast: RawSite, tmp_path: Path) -> None:
        source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
        source.write_text("one\ntwo\n")
        command = ("batch", str(source), "--out", str(out), "--quiet")
        assert run(*command, "-m", "fast").exit_code == 0
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["text"] for line in lines] == ["2: ok", "2: ok"]
        assert run(*command, "-m", "fast").exit_code == 0
        assert len(fast.bodies) == 2, "its lines are there"
        kind = ("-m", "openai", f"--base-url={fast.url}/v1", "--model-name")
        assert run(*command, *kind, "llama3.2").exit_code == 0
        assert len(fast.bodies) == 2, "it is the same model at the same address"
        assert run(*command, *kind, "other").exit_code == 0
        assert len(fast.bodies) == 4
        assert run(*command, "-m", "echo").exit_code == 0
        assert out.read_text().count('"text": "one"') + out.read_text().count('"text":"one"') == 1


class TestChat:
    def test_goes_on_with_the_model_of_that_name(
        self, file: Path, fast: RawSite, server: RawSite
    ) -> None:
        result = run("chat", "-m", "fast", lines="one\n", **KEYS)
        assert (result.stdout, result.stderr) == ("2: ok\n", "")
        (part,) = kept()
        assert (part.site, part.url, part.model) == ("fast", f"{server.url}/v1", "openai/llama3.2")
        assert "  fast\n> one\n" in run("logs").stdout
        text = file.read_text().replace("llama3.2", "llama3.3").replace('default = "fast"\n', "")
        file.write_text(text)
        assert run("chat", "--continue", lines="two\n").stdout == "4: ok\n"
        assert [body["model"] for body in server.bodies] == ["llama3.2", "llama3.3"]

    def test_with_a_removed_model_sends_no_other_key(self, file: Path, fast: RawSite) -> None:
        run("chat", "-m", "fast", lines="one\n")
        file.write_text("")
        result = run("chat", "--continue", lines="two\n", **KEYS)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert "this chat was with [models.fast], which" in result.stderr
        assert len(fast.bodies) == 1
        result = run("chat", "--continue", "-m", "echo", lines="two\n")
        assert result.stdout == "two\n"

    def test_changes_to_it(self, fast: RawSite) -> None:
        result = run("chat", "-m", "echo", lines="one\n/site\n/site fast\ntwo\n/site slow\n")
        assert result.stdout == "one\n4: ok\n"
        assert "asking echo; in the configuration: fast" in result.stderr
        assert "no site 'slow'" in result.stderr


def kept() -> list[Kept]:
    with closing(Store(store_path())) as store:
        return store.last()


class TestCompletion:
    def complete(self, words: str, last: str) -> list[str]:
        env = {"_GPROCHAT_COMPLETE": "bash_complete", "COMP_WORDS": f"gprochat {words} {last}"}
        env["COMP_CWORD"] = str(len(words.split()) + 1)
        shown = CliRunner().invoke(gprochat, prog_name="gprochat", env=env).stdout
        return [line.removeprefix("plain,") for line in shown.split()]

    def test_knows_kinds_and_names(self, fast: RawSite) -> None:
        for command in ("ask", "chat", "batch"):
            found = self.complete(f"{command} -m", "")
            assert found == ["offline", "echo", "gemini", "openai", "fast"]
        assert self.complete("serve --model", "")[-2:] == ["gprochat", "fast"]
        for command in ("check", "models"):
            assert self.complete(f"{command} -m", "") == ["gemini", "openai", "fast"]
        assert self.complete("ask -m", "f") == self.complete("ask --site", "f") == ["fast"]

    def test_knows_kinds_despite_an_invalid_file(self, file: Path) -> None:
        file.write_text("nonsense")
        assert self.complete("ask -m", "e") == ["echo"]


class TestServe:
    @pytest.mark.slow
    def test_answers_with_it(self, fast: RawSite) -> None:
        async def ask(url: str) -> str:
            async with Client(url, trust_env=False) as client:
                return (await client.ask("Hi")).text

        env = environment(GPROCHAT_CONFIG=os.environ["GPROCHAT_CONFIG"])
        with running("serve", "--port=0", "-m", "fast", env=env) as process:
            assert process.stdout
            url = process.stdout.readline().decode().strip()
            assert anyio.run(ask, url) == "2: ok"
        assert fast.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-m", "slow"], "nor a model of"),
            (["-m", "fast", "--base-url=http://x"], "leave --base-url and --model-name out"),
        ],
    )
    def test_invalid_options(self, fast: RawSite, arguments: list[str], said: str) -> None:
        result = run("serve", "--port=0", *arguments)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert said in result.stderr

    def test_needs_its_key(self, file: Path) -> None:
        file.write_text("[models.g]\nkind = 'gemini'\n")
        result = run("serve", "--port=0", "-m", "g")
        assert result.exit_code == 2
        assert result.stderr == "gprochat: [models.g] needs its key: set GEMINI_API_KEY\n"
