"""`gprochat ask` in this process: prompts, output, errors."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import pytest
from anyio import from_thread, lowlevel
from click.testing import CliRunner, Result
from support.raw_site import (
    END,
    HEAD,
    Answer,
    Exchange,
    failing,
    raw_site,
    replying,
    sending,
)

from gprochat_anyio import __version__
from gprochat_anyio.cli._exit_codes import STATUSES
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError

BACKENDS = ["asyncio", "trio"]
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"
pytestmark = pytest.mark.usefixtures("clean_environment")


def run(*arguments: str, stdin: str | bytes = "", **env: str) -> Result:
    return CliRunner().invoke(gprochat, ["ask", *arguments], input=stdin, env=env)


def ask(answer: Answer, *arguments: str, **options: Any) -> Result:
    with raw_site(answer) as site:
        return run("--url", site.url, *arguments, **options)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return f"--backend={request.param}"


def test_version() -> None:
    result = CliRunner().invoke(gprochat, ["--version"], prog_name="gprochat")
    assert result.stdout == f"gprochat {__version__}\n"


@pytest.mark.parametrize("command", [[], ["ask"], ["serve"]])
def test_help_fits_a_screen(command: list[str]) -> None:
    result = CliRunner().invoke(gprochat, [*command, "-h"], env={"GPROCHAT_SECRET_KEY": "s3"})
    lines = result.stdout.splitlines()
    assert len(lines) <= 23, "one line is the shell's"
    assert max(map(len, lines)) <= 79
    assert "s3" not in result.stdout
    assert "..." not in result.stdout.partition("Commands:")[2], "nothing is cut off"


class TestPrompt:
    @pytest.mark.parametrize(
        ("arguments", "stdin", "sent"),
        [
            (["Hello"], "", "Hello"),
            ([], "from stdin\n", "from stdin"),
            (["Summarise"], "line 1\nline 2\n", "Summarise\n\nline 1\nline 2"),
            (["--", "--not-an-option"], "", "--not-an-option"),
            (["-"], "from stdin\n", "from stdin"),
            ([], b"\xef\xbb\xbfwith a mark", "with a mark"),
            ([], "Ünï 🙂", "Ünï 🙂"),
        ],
    )
    def test_is_argument_and_stdin(
        self, arguments: list[str], stdin: str | bytes, sent: str
    ) -> None:
        with raw_site(replying("ok")) as site:
            assert run("--url", site.url, *arguments, stdin=stdin).exit_code == 0
        assert site.prompts == [sent]

    @pytest.mark.parametrize("arguments", [[], [" "], [""]])
    def test_without_text_is_refused(self, arguments: list[str], backend: str) -> None:
        result = run("--url=http://127.0.0.1:9", backend, *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert 'the prompt is empty: give it as an argument, gprochat ask "Hello"' in result.stderr

    def test_of_invalid_utf_8_is_refused(self) -> None:
        result = run(stdin=b"caf\xe9")
        assert result.exit_code == 2
        assert "not UTF-8 text, from byte 3" in result.stderr


class TestOutput:
    def test_is_the_reply_alone(self, backend: str) -> None:
        result = ask(replying("Hel", "lo"), "Hi", backend)
        assert (result.stdout, result.stderr, result.exit_code) == ("Hello\n", "", 0)

    def test_ends_in_one_newline(self) -> None:
        assert ask(replying("Hello\n"), "Hi").stdout == "Hello\n"

    def test_is_exact_in_a_pipe(self) -> None:
        result = ask(replying("\x1b[31mred\r\n", "Йй 🙂\x9b"), "Hi")
        assert result.stdout_bytes == "\x1b[31mred\r\nЙй 🙂\x9b\n".encode()

    def test_stats_go_to_stderr(self) -> None:
        result = ask(replying("Hello"), "Hi", "--stats")
        assert result.stdout == "Hello\n"
        assert "5 characters in 1 pieces; attempts: 1" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_json_is_one_object(self, backend: str) -> None:
        result = ask(replying("Hello\x7f\x9b", " 🙂"), "Hi", "--json", backend)
        assert result.stdout.count("\n") == 1
        assert "\x7f" not in result.stdout
        assert "\x9b" not in result.stdout
        answer = json.loads(result.stdout)
        assert answer["text"] == "Hello\x7f\x9b 🙂"
        assert answer["error"] is None
        assert answer["timing"].keys() == {
            "connect", "first_chunk", "total", "chunks", "characters", "attempts",
        }  # fmt: skip

    def test_json_holds_the_error_and_what_came_before_it(self, backend: str) -> None:
        def cut(exchange: Exchange) -> None:
            exchange.send(HEAD)
            exchange.text("half a ")

        result = ask(cut, "Hi", "--json", backend)
        answer = json.loads(result.stdout)
        assert answer["text"] == "half a "
        assert answer["error"]["type"] == "ReplyInterruptedError"
        assert answer["timing"]["characters"] == 7
        assert result.exit_code == 9
        assert result.stderr == f"gprochat: {answer['error']['message']}\n"

    def test_json_of_an_error_that_is_not_text(self) -> None:
        answer = json.loads(ask(failing(500, "half a pair: \ud800"), "Hi", "--json").stdout)
        assert answer["text"] == ""
        assert answer["timing"] is None
        assert answer["error"]["message"].endswith("half a pair:  ")

    def test_leaves_the_event_loop_free(
        self, monkeypatch: pytest.MonkeyPatch, backend: str
    ) -> None:
        written = []

        def write(_: Output, text: str) -> None:
            from_thread.run(lowlevel.checkpoint)  # the loop runs while this waits
            written.append(text)

        monkeypatch.setattr(Output, "write", write)
        assert ask(replying("Hello"), "Hi", backend).exit_code == 0
        assert written[0] == "Hello"

    def test_ends_quietly_without_a_reader(
        self, monkeypatch: pytest.MonkeyPatch, backend: str
    ) -> None:
        def write(_: Output, text: str) -> None:
            raise PipeClosedError

        monkeypatch.setattr(Output, "write", write)
        result = ask(replying("Hello"), "Hi", backend)
        assert (result.stderr, result.exit_code) == ("", 0)
        result = run("Hi", backend)
        assert "embedded site" in result.stderr
        assert (len(result.stderr.splitlines()), result.exit_code) == (1, 0)

    def test_that_cannot_be_written_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch, backend: str
    ) -> None:
        def write(_: Output, text: str) -> None:
            raise OSError(28, "cannot write to stdout: disk full")

        monkeypatch.setattr(Output, "write", write)
        result = ask(replying("Hello"), "Hi", backend)
        assert result.stderr == "gprochat: cannot write to stdout: disk full\n"
        assert result.exit_code == 1
        assert run("Hi", backend).exit_code == 1


def cut_off(exchange: Exchange) -> None:
    exchange.send(HEAD)
    exchange.text("half")


def marked(exchange: Exchange) -> None:
    exchange.send(HEAD)
    exchange.text("half", "Internal server error")
    exchange.send(END)


class TestErrors:
    @pytest.mark.parametrize(
        ("answer", "status", "said"),
        [
            (failing(401, "Invalid signature."), 5, "GPROCHAT_SECRET_KEY"),
            (failing(401, "Invalid password."), 5, "GPROCHAT_PASSWORD"),
            (failing(500, "[429 Too Many Requests]"), 6, "too many requests"),
            (failing(500, "the model\x1b[2J\nrefused"), 7, "refused"),
            (sending(HTML), 8, "text/html"),
            (cut_off, 9, "broke off"),
            (marked, 9, "broke off"),
            (sending(EMPTY), 10, "no text"),
        ],
    )
    def test_is_one_line_and_a_status(
        self, answer: Answer, status: int, said: str, backend: str
    ) -> None:
        with raw_site(answer) as site:
            result = run("--url", site.url, "Hi", backend)
        assert result.exit_code == status
        assert result.stdout == ("half\n" if status == 9 else "")
        assert result.stderr.startswith("gprochat: ")
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
        assert "\x1b" not in result.stderr

    def test_of_a_connection(self, backend: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        result = run("--url", f"http://127.0.0.1:{port}", "Hi", backend)
        assert (result.stdout, result.exit_code) == ("", 3)
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("clock", ["first-chunk", "idle", "total"])
    def test_of_a_timeout(self, clock: str, backend: str) -> None:
        def stall(exchange: Exchange) -> None:
            exchange.send(HEAD)
            if clock == "idle":
                exchange.text("half")
            exchange.until_left()

        result = ask(stall, "Hi", backend, f"--timeout-{clock}=0.2", "--json", "--stats")
        assert result.exit_code == 4
        answer = json.loads(result.stdout)
        assert answer["error"]["type"] == "RequestTimeoutError"
        assert f" within 0.2 s (--timeout-{clock}): " in result.stderr
        assert f"Timeouts.{clock.replace('-', '_')}" in answer["error"]["message"]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--timeout-total=-1"],
            ["--timeout-idle=nan"],
            ["--timeout-idle=soon"],
            ["--url=chat.example.org"],
            ["--url=https://me:secret@chat.example.org"],
            ["--url=http://127.0.0.1:9", "--proxy=gopher://x"],
            ["--proxy=http://127.0.0.1:9"],
            ["--backend=curio"],
            ["--unknown"],
            ["one", "two"],
            ["--timeout-connect=inf", "\ud800"],
        ],
    )
    def test_of_a_setting(self, arguments: list[str], backend: str) -> None:
        result = run(backend, "Hi", *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "secret" not in result.stderr

    def test_of_a_prompt_without_quotes(self, backend: str) -> None:
        result = run(backend, "why", "is", "it?")
        assert result.exit_code == 2
        assert 'put it in quotes, gprochat ask "' in result.stderr

    def test_of_a_timeout_below_zero(self, backend: str) -> None:
        assert "x>=0" in run(backend, "Hi", "--timeout-total=-1").stderr

    def test_of_a_timeout_that_is_not_a_number(self, backend: str) -> None:
        said = run(backend, "Hi", "--timeout-total=nan").stderr
        assert "'--timeout-total': give a number of seconds, or inf for no limit." in said

    def test_has_a_status_of_its_own(self) -> None:
        statuses = [status for _, status in STATUSES]
        assert sorted(statuses) == [2, 2, 3, 4, 5, 6, 7, 8, 9, 10]


class TestSite:
    def test_settings_come_from_the_environment(self) -> None:
        with raw_site(replying("ok")) as site:
            env = {"GPROCHAT_URL": site.url, "GPROCHAT_PASSWORD": "two words"}
            result = run("Hi", **env, GPROCHAT_SECRET_KEY="s3")
        assert result.stdout == "ok\n"
        assert result.stderr == ""
        assert site.bodies[0]["pass"] == "two words"

    def test_options_go_before_the_environment(self) -> None:
        with raw_site(replying("ok")) as site:
            env = {"GPROCHAT_URL": "http://127.0.0.1:9", "GPROCHAT_PASSWORD": "p"}
            result = run("Hi", "--url", site.url, "--password=q", **env)
        assert result.stdout == "ok\n"
        assert site.bodies[0]["pass"] == "q"

    @pytest.mark.parametrize("secrets", [[], ["--secret-key=k", "--password=p"]])
    def test_is_the_embedded_one_by_default(self, backend: str, secrets: list[str]) -> None:
        # A proxy of the environment does not apply to loopback addresses.
        result = run("Hello", backend, *secrets, GPROCHAT_URL="", HTTP_PROXY="http://127.0.0.1:9")
        assert result.exit_code == 0
        assert result.stdout.endswith("You said: Hello\n")
        assert "the embedded site replies" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_needs_its_extra_to_be_embedded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gprochat_anyio.site", None)
        result = run("Hello")
        assert result.exit_code == 1
        assert result.stderr.startswith("gprochat: ")
