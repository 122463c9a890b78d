"""`gprochat chat --model`: a chat without a site."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from click.testing import CliRunner, Result
from support.model_servers import END, HEAD, answer, chunk, event, gemini, openai, stream
from support.raw_site import Exchange, RawSite, raw_site, replying, sending

from gprochat_anyio.cli._database import store_path
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._store import Kept, Store


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, lines: str = "", **env: str) -> Result:
    return CliRunner().invoke(gprochat, arguments, input=lines, env=env)


def chat(*arguments: str, lines: str = "Hi\n", **env: str) -> Result:
    return run("chat", *arguments, lines=lines, **env)


def counted(exchange: Exchange) -> None:
    """Reply with the number of messages in the request."""
    exchange.send(stream(openai(f"{len(exchange.body['messages'])}: "), openai("ok", "stop")))


@pytest.fixture
def server() -> Iterator[RawSite]:
    with raw_site(counted) as server:
        yield server


def own(server: RawSite) -> list[str]:
    return ["--model=openai", "--model-name=llama3.2", f"--base-url={server.url}"]


def kept() -> list[Kept]:
    with closing(Store(store_path())) as store:
        return store.last()


class TestTurns:
    def test_with_the_echo(self) -> None:
        result = chat("--model=echo", lines="one\ntwo\n", GPROCHAT_URL="http://127.0.0.1:9")
        assert (result.stdout, result.stderr, result.exit_code) == ("one\ntwo\n", "", 0)

    def test_with_the_offline_model(self) -> None:
        result = chat("--model=offline")
        assert result.stdout.endswith("You said: Hi\n")
        assert result.stderr == "", "it was asked for"

    def test_have_a_history(self, server: RawSite) -> None:
        result = chat(*own(server), "--system=Be brief.", lines="one\ntwo\n/undo\n/retry\n")
        assert result.stdout == "2: ok\n4: ok\n2: ok\n"
        assert result.exit_code == 0
        assert server.bodies[0]["model"] == "llama3.2"
        assert server.bodies[0]["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
        ]

    def test_with_gemini(self) -> None:
        with raw_site(sending(stream(gemini("Hel"), gemini("lo", "STOP")))) as server:
            arguments = ("--model=gemini", "--model-name=gemini-2.5-pro", "--base-url", server.url)
            result = chat(*arguments, GEMINI_API_KEY="key\n")
        assert (result.stdout, result.stderr, result.exit_code) == ("Hello\n", "", 0)

    def test_a_proxy_of_the_environment_is_no_way_to_it(self) -> None:
        assert chat("--model=echo", HTTP_PROXY="http://127.0.0.1:9").stdout == "Hi\n"


class TestFailures:
    @pytest.mark.parametrize(
        ("body", "status", "said"),
        [
            (answer(404, {"error": {"message": "no such model"}}), 7, "no such model"),
            (answer(401, {"error": {"message": "Incorrect key: sk-made-up"}}), 5, "OPENAI_API_KEY"),
            (answer(429, {"error": {"message": "slow down"}}), 6, "slow down"),
            (HEAD + chunk(event(openai("half"))) + END, 9, "broke off"),
        ],
    )
    def test_have_the_same_messages_as_in_ask(self, body: bytes, status: int, said: str) -> None:
        with raw_site(sending(body)) as server:
            asked, chatted = (
                run(*command, *own(server), lines="Hi\n", OPENAI_API_KEY="sk-made-up")
                for command in (["ask"], ["chat", "--no-log"])
            )
        assert chatted.exit_code == asked.exit_code == status
        assert said in chatted.stderr
        assert chatted.stderr == asked.stderr
        assert "sk-made-up" not in chatted.output

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--model=gemini"], "set GEMINI_API_KEY"),
            (["--model=openai"], "needs --model-name"),
            (["--model=openai", "--model-name=m"], "set OPENAI_API_KEY; or give --base-url"),
            (["--model=openai", "--model-name=m", "--base-url=ftp://x"], "base_url"),
            (["--model=echo", "--base-url=http://127.0.0.1:9"], "takes no --base-url"),
            (["--model=echo", "--url=http://x"], "give the address of a model's API as --base-url"),
            (["--base-url=http://x"], "needs its --model"),
            (["--model=echo", "--proxy=http://127.0.0.1:9"], "takes no --base-url"),
            (["--model=echo", "--site=x"], "--model and --site exclude each other"),
            (["--model-name=m"], "needs its --model"),
            (["--model-name=m", "--continue"], "needs its --model"),
            (["--proxy=http://127.0.0.1:9"], "--proxy needs a site"),
        ],
    )
    def test_of_settings_say_what_to_do(self, arguments: list[str], said: str) -> None:
        chat("--model=echo")
        result = chat(*arguments)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert said in result.stderr

    def test_of_a_missing_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith("gprochat_anyio.site")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "starlette.applications", None)
        result = chat("--model=echo")
        assert (result.stdout, result.exit_code) == ("", 1)
        assert "pip install 'gprochat-anyio[site]'" in result.stderr


class TestKeeping:
    def test_goes_on_with_the_model(self, server: RawSite) -> None:
        chat(*own(server), "--system=Be brief.", lines="one\n", OPENAI_API_KEY="sk-made-up")
        (part,) = kept()
        assert (part.site, part.url, part.model) == (None, server.url, "openai/llama3.2")
        result = chat("--continue", lines="two\n")
        assert (result.stdout, result.stderr) == ("4: ok\n", "")
        assert server.bodies[1]["model"] == "llama3.2"
        assert b"sk-made-up" not in store_path().read_bytes()

    def test_goes_on_where_the_environment_said(self, server: RawSite) -> None:
        arguments = ("--model=openai", "--model-name=m")
        chat(*arguments, lines="one\n", OPENAI_BASE_URL=server.url)
        result = chat("--continue", lines="two\n", OPENAI_BASE_URL="http://127.0.0.1:9")
        assert (result.stdout, result.stderr) == ("3: ok\n", "")

    def test_goes_on_with_another(self, server: RawSite) -> None:
        chat("--model=echo", lines="one\n")
        assert chat("--continue", *own(server), lines="two\n").stdout == "3: ok\n"
        turns = kept()[0].turns
        assert [turn.model for turn in turns] == ["echo", "openai/llama3.2"]
        assert [turn.earlier for turn in turns] == [True, False], "this is a chat of its own"
        assert kept()[0].model == "openai/llama3.2"

    def test_needs_the_key_again(self) -> None:
        with raw_site(sending(stream(gemini("ok", "STOP")))) as server:
            chat("--model=gemini", "--base-url", server.url, GEMINI_API_KEY="key")
        result = chat("--continue")
        assert result.exit_code == 2
        assert "set GEMINI_API_KEY" in result.stderr

    def test_logs_name_it(self, server: RawSite) -> None:
        chat(*own(server), lines="one\n")
        assert "  openai/llama3.2\n> one\n1: ok\n" in run("logs").stdout
        turn = json.loads(run("logs", "--json").stdout)
        assert (turn["model"], turn["url"], turn["site"]) == ("openai/llama3.2", server.url, None)

    def test_a_site_and_back(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        config = tmp_path_factory.mktemp("config") / "config.toml"
        with raw_site(replying("of the site")) as site:
            config.write_text(f"[sites.work]\nurl = '{site.url}'\n")
            lines = "/site\none\n/site work\ntwo\n/site echo\nthree\n/site work echo\nfour\n"
            result = chat("--model=echo", lines=lines, GPROCHAT_CONFIG=str(config))
        assert result.stdout == ("one\nof the site\nthree\nwork:\nof the site\necho:\nfour\n")
        assert result.stderr.splitlines() == [
            "asking echo; in the configuration: work",
            "asking work",
            "asking echo",
            "asking work, echo",
        ]
        assert [len(body["messages"]) for body in site.bodies] == [3, 7]
