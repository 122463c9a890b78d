"""`/copy`: the last code block, and the clipboards that it can be copied to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Final

from ._markdown import parser

_PATIENCE: Final = 5.0  # seconds for a clipboard's command


class ClipboardError(Exception):
    """Lack of a clipboard. The message says what to install."""


def last_code_block(text: str) -> str | None:
    """Return the last code block of a Markdown text. None without one."""
    blocks = [t.content for t in parser.parse(text) if t.type in ("fence", "code_block")]
    return blocks[-1] if blocks else None


def copy(text: str, draw: Callable[[str], None] | None) -> None:
    """Copy a text to the clipboard, through a command of this machine or else the terminal.

    :param draw: Writes to the terminal. None without one.
    :raises ClipboardError: If there is no clipboard.
    """
    for command in _commands():
        if shutil.which(command[0]) is None:
            continue
        try:
            subprocess.run(  # noqa: S603 - one of our own list
                command,
                input=text.encode("utf-8", "replace"),
                stdout=subprocess.DEVNULL,  # it may stay in the background and hold these open
                stderr=subprocess.DEVNULL,
                timeout=_PATIENCE,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):  # for example, no display behind its variable
            continue
        return
    if draw is None:
        raise ClipboardError("there is no clipboard here: install wl-copy, xclip or xsel")
    draw(f"\x1b]52;c;{b64encode(text.encode('utf-8', 'replace')).decode()}\x07")  # OSC 52


def _commands() -> Iterator[tuple[str, ...]]:
    """Yield the commands that reach the user's clipboard. Over SSH, only the terminal does."""
    if os.environ.get("TMUX"):
        yield ("tmux", "load-buffer", "-w", "-")
    if os.environ.get("SSH_CONNECTION"):
        return
    if sys.platform == "darwin":
        yield ("pbcopy",)
    if os.environ.get("WAYLAND_DISPLAY"):
        yield ("wl-copy",)
    if os.environ.get("DISPLAY"):
        yield ("xclip", "-selection", "clipboard")
        yield ("xsel", "--clipboard", "--input")
