"""`/copy`: the choice of a clipboard."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import pytest

from gprochat_anyio.cli._clipboard import ClipboardError, copy, last_code_block

posix = pytest.mark.skipif(os.name == "nt", reason="scripts")


@pytest.fixture(autouse=True)
def _no_clipboard(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "SSH_CONNECTION", "TMUX", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder of clipboard commands, each of which writes its input to a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def add(folder: Path, name: str, *, fails: bool = False) -> None:
    script = "exit 1" if fails else f'/bin/cat > "{folder}/{name}.taken"'
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o700)


def taken(folder: Path) -> dict[str, str]:
    return {file.stem: file.read_text() for file in folder.glob("*.taken")}


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("no code", None),
        ("```py\none\n```\ntext\n~~~\ntwo\n\n~~~\nmore", "two\n\n"),
        ("text\n\n    indented\n", "indented\n"),
        ("```\nstill open", "still open"),
    ],
)
def test_the_last_code_block(text: str, block: str | None) -> None:
    assert last_code_block(text) == block


@posix
@pytest.mark.parametrize(
    ("platform", "variables", "tool"),
    [
        ("darwin", (), "pbcopy"),
        ("linux", ("WAYLAND_DISPLAY", "DISPLAY"), "wl-copy"),
        ("linux", ("DISPLAY",), "xclip"),
        ("linux", ("TMUX", "SSH_CONNECTION", "DISPLAY"), "tmux"),
    ],
)
def test_a_command_takes_it(
    monkeypatch: pytest.MonkeyPatch,
    tools: Path,
    platform: str,
    variables: tuple[str, ...],
    tool: str,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in variables:
        monkeypatch.setenv(name, "x")
    for name in ("pbcopy", "wl-copy", "xclip", "xsel", "tmux"):
        add(tools, name)
    copy("the text й", None)
    assert taken(tools) == {tool: "the text й"}


@posix
def test_another_takes_it_if_one_fails(monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    monkeypatch.setenv("DISPLAY", ":9")
    add(tools, "xclip", fails=True)
    add(tools, "xsel")
    copy("text", None)
    assert taken(tools) == {"xsel": "text"}


@posix
@pytest.mark.parametrize("variable", ["SSH_CONNECTION", "DISPLAY"])
def test_the_terminal_takes_it(monkeypatch: pytest.MonkeyPatch, tools: Path, variable: str) -> None:
    monkeypatch.setenv(variable, "x")
    drawn: list[str] = []
    copy("text", drawn.append)
    assert drawn == [f"\x1b]52;c;{base64.b64encode(b'text').decode()}\x07"]


@posix
def test_nothing_takes_it(tools: Path) -> None:
    with pytest.raises(ClipboardError, match="install wl-copy, xclip or xsel"):
        copy("text", None)
