"""Help, by every way of asking for it, and options that several commands share."""

from __future__ import annotations

import errno
import runpy
import sys

import pytest
from click.testing import CliRunner, Result

from gprochat_anyio import __main__
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError

COMMANDS = ("ask", "batch", "chat", "check", "completion", "help", "logs", "models", "serve")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(gprochat, arguments, prog_name="gprochat")


@pytest.mark.parametrize("command", COMMANDS)
def test_all_ways_show_the_same(command: str) -> None:
    shown = run(command, "--help").stdout
    assert shown.startswith(f"Usage: gprochat {command} ")
    assert run(command, "-h").stdout == run("help", command).stdout == shown


def test_of_all_commands() -> None:
    shown = run("help").stdout
    assert shown == run("-h").stdout == run("--help").stdout
    assert all(f"\n  {command} " in shown for command in COMMANDS)


def test_of_what_is_not_a_command() -> None:
    result = run("help", "nonsense")
    assert result.exit_code == 2
    assert "there is no command 'nonsense'; there are ask, batch, chat, " in result.stderr


ARGUMENTS = [["--help"], ["--version"], ["help"], ["help", "ask"], ["completion", "bash"]]


@pytest.mark.parametrize("arguments", [*ARGUMENTS, *([name, "-h"] for name in COMMANDS)])
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (PipeClosedError(), 0, ""),
        (OSError(errno.ENOSPC, "cannot write: full"), 1, "gprochat: cannot write: full\n"),
    ],
)
def test_a_stdout_that_fails_is_told_as_by_other_commands(
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error: Exception,
    status: int,
    said: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Output, "write", fail)
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", said)


def test_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["__main__.py", "--version"])
    runpy.run_path(__main__.__file__)  # as an import would
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        runpy.run_path(__main__.__file__, run_name="__main__")
    assert capsys.readouterr().out.startswith("gprochat ")


@pytest.mark.parametrize("command", ["ask", "batch", "chat", "check", "models", "serve"])
def test_the_address_of_an_api_is_not_that_of_a_site(command: str) -> None:
    shown = run(command, "-h").stdout
    assert "--url, --base-url" not in shown
    assert "--base-url" in shown
