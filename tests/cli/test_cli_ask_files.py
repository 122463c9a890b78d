"""`gprochat ask` with files and instructions, and its messages about a reply."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from support.model_servers import openai, stream
from support.raw_site import RawSite, raw_site, replying, sending

from gprochat_anyio.cli import _prompt
from gprochat_anyio.cli._main import gprochat

USAGE = {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}}


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site() -> Iterator[RawSite]:
    with raw_site(replying("ok")) as site:
        yield site


def ask(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(gprochat, ["ask", *arguments], input=stdin)


class TestFiles:
    @pytest.mark.parametrize(
        ("arguments", "stdin", "sent"),
        [
            (["-f", "a.txt", "Why?"], "", "File a.txt:\none\ntwo\n\nWhy?"),
            (["Q", "--file=b", "-f", "a.txt"], "", "File b:\nü\n\nFile a.txt:\none\ntwo\n\nQ"),
            (["-f", "a.txt"], "", "File a.txt:\none\ntwo"),
            (["-f", "a.txt", "Why?"], "piped\n", "File a.txt:\none\ntwo\n\nWhy?\n\npiped"),
            (["-f", "-", "Why?"], "piped\n", "File stdin:\npiped\n\nWhy?"),
            (["-f", "-", "-f", "a.txt"], "piped", "File stdin:\npiped\n\nFile a.txt:\none\ntwo"),
            (["-f", "empty", "Why?"], "", "File empty:\n\n\nWhy?"),
        ],
    )  # fmt: skip
    def test_go_before_the_prompt(
        self, site: RawSite, arguments: list[str], stdin: str, sent: str
    ) -> None:
        Path("a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
        Path("b").write_text("ü\r\n", encoding="utf-8")
        Path("empty").touch()
        result = ask("--url", site.url, *arguments, stdin=stdin)
        assert (result.stdout, result.stderr, result.exit_code) == ("ok\n", "", 0)
        assert site.prompts == [sent]

    @pytest.mark.parametrize(
        ("name", "data", "said"),
        [
            ("caf\udce9.txt", b"caf\xe9", "caf\ufffd.txt is not UTF-8 text, from byte 3 on."),
            ("utf-16", "text".encode("utf-16"), "utf-16 is not a text: byte 3 is 0."),
            ("image", b"GIF89a\x01\x00\x01", "image is not a text: byte 7 is 0."),
            ("big", b"x" * (_prompt.FILE_LIMIT + 1), "big is larger than 4 MiB; give a part of it"),
        ],
    )
    def test_that_are_invalid(self, name: str, data: bytes, said: str) -> None:
        if sys.platform == "darwin" and not name.isascii():
            pytest.skip("its names are UTF-8")
        Path(name).write_bytes(data)
        result = ask("--url=http://127.0.0.1:9", "-f", name, "Why?")
        assert (result.stdout, result.exit_code) == ("", 2)
        assert said in result.stderr

    def test_of_the_largest_size(self, site: RawSite) -> None:
        Path("big").write_bytes(b"x" * _prompt.FILE_LIMIT)
        assert ask("--url", site.url, "-f", "big").exit_code == 0
        assert len(site.prompts[0]) == _prompt.FILE_LIMIT + len("File big:\n")

    @pytest.mark.parametrize("arguments", [[], ["-"], ["-f", "-"], ["Why?"]])
    @pytest.mark.parametrize(
        ("data", "said"),
        [(b"\0", "stdin is not a text: byte 0 is 0."), (b"a\xff", "stdin is not UTF-8 text")],
    )
    def test_are_checked_as_stdin_is(self, arguments: list[str], data: bytes, said: str) -> None:
        result = ask("--url=http://127.0.0.1:9", *arguments, stdin=data)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert said in result.stderr

    @pytest.mark.parametrize("arguments", [["-f", "-"], ["-f", "-", "-f", "empty", " "]])
    @pytest.mark.parametrize("stdin", ["", " \n"])
    def test_without_text_are_an_empty_prompt(self, arguments: list[str], stdin: str) -> None:
        Path("empty").touch()
        result = ask("--url=http://127.0.0.1:9", *arguments, stdin=stdin)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert "Error: the prompt is empty: give it as an argument" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-f", "none.txt"], "'none.txt' does not exist"),
            (["-f", "."], "'.' is a directory"),
            (["-f", "-", "-f", "-"], "- is stdin, which can be read only once"),
        ],
    )
    def test_that_are_missing(self, arguments: list[str], said: str) -> None:
        result = ask("--url=http://127.0.0.1:9", "Why?", *arguments)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert said in result.stderr

    def test_that_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(click.UsageError, match="cannot read gone: No such file"):
            _prompt.read_prompt("Why?", ["gone"])
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(click.UsageError, match="there is no stdin to read"):
            _prompt.read_prompt("Why?", ["-"])

    @pytest.mark.skipif(os.name == "nt", reason="no such files")
    def test_may_be_a_pipe_of_the_shell(self, site: RawSite) -> None:
        read, write = os.pipe()
        with os.fdopen(read), os.fdopen(write, "wb") as pipe:
            pipe.write(b"of a command\n")
            pipe.close()
            assert ask("--url", site.url, "-f", f"/dev/fd/{read}", "Why?").exit_code == 0
        assert site.prompts == [f"File /dev/fd/{read}:\nof a command\n\nWhy?"]


class TestSystem:
    def test_goes_to_a_model_as_such(self) -> None:
        with raw_site(sending(stream(openai("ok", "stop")))) as server:
            arguments = ("-m", "openai", "--model-name=m", "--base-url", server.url)
            assert ask(*arguments, "--system", "Be brief.", "Hi").stdout == "ok\n"
        assert server.bodies[0]["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]

    @pytest.mark.parametrize(("system", "sent"), [("Be brief.", "Be brief.\n\nHi"), ("", "Hi")])
    def test_goes_to_a_site_before_the_prompt(self, site: RawSite, system: str, sent: str) -> None:
        assert ask("--url", site.url, "--system", system, "Hi").exit_code == 0
        assert site.prompts == [sent]

    def test_that_cannot_be_sent(self) -> None:
        result = ask("--url=http://127.0.0.1:9", "--system=\ud800", "Hi")
        assert (result.stdout, result.exit_code) == ("", 2)
        assert ask("--url=http://127.0.0.1:9", "--system=x", " ").exit_code == 2


class TestReplies:
    def ask(self, *arguments: str, reason: str = "stop", usage: bool = True) -> Result:
        events = [openai("Hel"), openai("lo", reason), *([USAGE] if usage else []), "[DONE]"]
        with raw_site(sending(stream(*events))) as server:
            return ask("-m", "openai", "--model-name=m", "--base-url", server.url, "Hi", *arguments)

    def test_stats(self) -> None:
        result = self.ask("--stats")
        assert result.stdout == "Hello\n"
        assert result.stderr.endswith("; attempts: 1; tokens: 12 in, 3 out; finish reason: stop\n")
        assert "tokens" not in self.ask("--stats", usage=False).stderr

    def test_stats_of_a_site_that_does_not_say(self, site: RawSite) -> None:
        assert ask("--url", site.url, "Hi", "--stats").stderr.endswith("; attempts: 1\n")

    def test_json(self, site: RawSite) -> None:
        told = json.loads(self.ask("--json").stdout)
        assert told["finish_reason"] == "stop"
        assert told["usage"] == {"input_tokens": 12, "output_tokens": 3}
        told = json.loads(ask("--url", site.url, "Hi", "--json").stdout)
        assert (told["finish_reason"], told["usage"]) == (None, None)

    @pytest.mark.parametrize("arguments", [[], ["--json"]])
    def test_that_is_cut_off_at_a_limit(self, arguments: list[str]) -> None:
        result = self.ask(*arguments, reason="length")
        assert result.stderr == (
            "gprochat: the reply is cut off: the model has reached its limit of tokens\n"
        )
        assert result.exit_code == 0
