"""Where the lines of a chat come from: a person at a terminal, or a pipe."""

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

from ._exits import say

_HINT = "Ctrl-C again leaves"


class CtrlCLeftError(Exception):
    """A person has left by Ctrl-C."""


class Editor:
    """Lines with editing and history. Enter ends one, unless there is a backslash before it;
    Alt-Enter, or pasting, makes further ones. For asyncio.

    :param history: what was entered before, oldest first
    :param commands: to complete at the beginning of a line, and what each takes
    :param sites: to complete where a command takes names
    """

    def __init__(
        self, history: Iterable[str], commands: Mapping[str, str], sites: Sequence[str]
    ) -> None:
        self._pressed = False
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(list(history)),
            completer=_Completer(commands, sites),
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
        """What a person enters next.

        :param pressed: whether Ctrl-C was pressed just now, so that the next one leaves
        :raises EOFError: if it is Ctrl-D
        :raises CtrlCLeftError: if it is Ctrl-C for the second time
        """
        self._pressed = pressed
        while True:
            try:
                return await self._session.prompt_async(prompt, set_exception_handler=False)
            except KeyboardInterrupt:  # in a dumb terminal, where the keys are not all ours
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
    """Lines from a stdin that is no terminal."""

    async def line(self, prompt: str, *, pressed: bool) -> str:  # noqa: ARG002 - as Editor.line
        """The next line; a backslash at its end adds the one after it.

        :raises EOFError: if there is none
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
    """Commands, and what follows them."""

    def __init__(self, commands: Mapping[str, str], sites: Sequence[str]) -> None:
        words = [f"{name} " if argument else name for name, argument in commands.items()]
        self._commands = WordCompleter(words, sentence=True)
        names, files = WordCompleter(list(sites), WORD=True), PathCompleter(expanduser=True)
        kinds = {"FILE": files, "[NAME ...]": names}
        self._arguments = {name: kinds.get(argument) for name, argument in commands.items()}

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        command, space, argument = document.text_before_cursor.partition(" ")
        completer = self._arguments.get(command) if space else self._commands
        if completer is None:
            return ()
        return completer.get_completions(Document(argument) if space else document, complete_event)
