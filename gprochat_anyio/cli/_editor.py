"""Sources of a chat's lines: an editor in the terminal, or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anyio import to_thread
from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import (
    CompleteEvent,
    Completer,
    Completion,
    PathCompleter,
    WordCompleter,
)
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.search import stop_search
from prompt_toolkit.shortcuts import CompleteStyle

from ._exit_codes import say

_HINT = "Ctrl-C again leaves"


class CtrlCLeftError(Exception):
    """Second Ctrl-C, which leaves the chat."""


class Editor:
    """Line editor with history and completion, for asyncio.

    Enter ends the input, unless a backslash precedes it. Alt-Enter and pasting add lines.

    :param history: Earlier inputs, oldest first.
    :param commands: Commands to complete at the start of a line, each with its argument.
    :param sites: Names to complete for `/site`.
    :param models: Names to complete for `/model`.
    """

    def __init__(
        self,
        history: Iterable[str],
        commands: Mapping[str, str],
        sites: Sequence[str],
        models: Sequence[str],
    ) -> None:
        self._pressed = False
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(list(history)),
            completer=_Completer(commands, sites, models),
            complete_style=CompleteStyle.READLINE_LIKE,
            complete_while_typing=False,
            key_bindings=self._keys(),
            multiline=True,
            prompt_continuation=lambda width, *_: " " * width,
            rprompt=lambda: _HINT if self._pressed else "",
            enable_suspend=True,
            reserve_space_for_menu=0,  # there is none
        )
        self._session.default_buffer.on_text_changed += self._typed

    async def line(self, prompt: str, *, pressed: bool) -> str:
        """Return the next input.

        :param pressed: True if Ctrl-C was pressed just now, so that the next one leaves.
        :raises EOFError: At Ctrl-D.
        :raises CtrlCLeftError: At the second Ctrl-C.
        """
        self._pressed = pressed
        while True:
            try:
                return await self._session.prompt_async(prompt, set_exception_handler=False)
            except KeyboardInterrupt:  # in a dumb terminal, which ignores some bindings
                if self._pressed:
                    raise CtrlCLeftError from None
                self._pressed = True
                say(_HINT)

    def _typed(self, buffer: Buffer) -> None:
        if buffer.text:
            self._pressed = False

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        editing = has_focus(DEFAULT_BUFFER)  # not searching the history, which has its own keys

        @keys.add("enter", filter=editing)
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.current_line_before_cursor.endswith("\\"):
                buffer.delete_before_cursor()
                buffer.newline(copy_margin=False)
            else:
                buffer.validate_and_handle()

        @keys.add("escape", "enter", filter=editing)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _(event: KeyPressEvent) -> None:
            if not editing():
                stop_search()
                return
            if not event.current_buffer.text and self._pressed:
                event.app.exit(exception=CtrlCLeftError, style="class:aborting")
            event.current_buffer.reset()
            self._pressed = True

        return keys


class Lines:
    """Lines from a stdin that is not a terminal."""

    async def line(self, prompt: str, *, pressed: bool) -> str:  # noqa: ARG002 - as Editor.line
        """Return the next line. A backslash at its end joins the one after it.

        :raises EOFError: At the end of stdin.
        """
        return await to_thread.run_sync(self._next)

    def _next(self) -> str:
        stdin: Any = sys.stdin
        lines: list[str] = []
        while stdin is not None and (data := stdin.buffer.readline()):
            line = data.decode("utf-8", "replace").rstrip("\r\n")
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])
        if lines:
            return "\n".join(lines)
        raise EOFError


class _Completer(Completer):
    """Completer of commands and their arguments."""

    def __init__(
        self, commands: Mapping[str, str], sites: Sequence[str], models: Sequence[str]
    ) -> None:
        words = [f"{name} " if argument else name for name, argument in commands.items()]
        self._commands = WordCompleter(words, sentence=True)
        kinds = {
            "FILE": PathCompleter(expanduser=True),
            "[NAME ...]": WordCompleter(list(sites), WORD=True),
            "[NAME]": WordCompleter(list(models), WORD=True),
        }
        self._arguments = {name: kinds.get(argument) for name, argument in commands.items()}

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        command, space, argument = document.text_before_cursor.partition(" ")
        completer = self._arguments.get(command) if space else self._commands
        if completer is None:
            return ()
        return completer.get_completions(Document(argument) if space else document, complete_event)
