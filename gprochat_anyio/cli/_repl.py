"""The loop of a chat: read a line, show the replies, log the turn."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Protocol

import click
from anyio import to_thread
from rich.console import Console

from ._answering import Interrupts, QuietKeyboard, receive
from ._commands import CommandError, Commands, LeaveChat
from ._ctrl_c import INTERRUPTED
from ._database import StoreError
from ._editor import CtrlCLeftError
from ._exit_codes import exit_status, say
from ._output import Output, visible
from ._speaker import Answer, Speaker
from ._store import LoggedTurn, Store
from ._views import MarkdownView, PlainView, View


class LineSource(Protocol):
    """A source of lines: an editor, or a pipe."""

    async def line(self, prompt: str, *, pressed: bool) -> str: ...


class Repl:
    """The loop of a chat.

    :param console: Renders Markdown. None to show replies as plain text.
    :param store: Logs the chat. None for no log.
    :param interactive: True if a user sits at a terminal.
    """

    def __init__(
        self,
        source: LineSource,
        commands: Commands,
        output: Output,
        console: Console | None,
        store: Store | None,
        *,
        interactive: bool,
    ) -> None:
        self._source = source
        self._commands = commands
        self._output = output
        self._console = console
        self._store = store
        self._interactive = interactive
        self._keyboard = QuietKeyboard(sys.stdin if interactive else None)
        self._failure: Exception | None = None

    async def run(self, interrupts: Interrupts) -> int:
        """Run until the lines end or the user leaves, and return the exit status.

        :raises PipeClosedError: If the reader has closed stdout.
        :raises OSError: If stdin or stdout fails.
        """
        while True:
            try:
                line = await self._source.line(self._prompt, pressed=interrupts.pressed)
            except EOFError:
                break
            except CtrlCLeftError:
                return INTERRUPTED
            interrupts.pressed = False
            try:
                answers = await self._answers(line)
            except CommandError as error:
                say(str(error))
                continue
            except LeaveChat:
                break
            left = bool(answers) and not await receive(
                answers, self._show, interrupts, self._keyboard
            )
            await self._keep()
            if left:
                return INTERRUPTED
            if answers:
                self._failure = next((a.error for a in answers if a.error is not None), None)
                if self._interactive:
                    await to_thread.run_sync(self._output.write, "\n")
        return 0 if self._interactive or not self._failure else exit_status(self._failure)

    async def show_last_turns(self) -> None:
        """Show the last turn of a continued chat."""
        for speaker in self._commands.speakers:
            for turn in speaker.turns[-1:]:
                await to_thread.run_sync(self._show_turn, speaker, turn)

    @property
    def _prompt(self) -> str:
        sites = (speaker.site for speaker in self._commands.speakers)
        names = [name for site in sites if (name := site.name or site.model)]
        return visible("+".join(names)).replace("\n", " ") + "> "

    async def _answers(self, line: str) -> list[Answer]:
        if "\0" in line:
            raise CommandError("the line contains NUL, which is not text; nothing was asked")
        if line.startswith("/"):
            return await self._commands.run(line)
        if not line.strip():
            return []
        return self._commands.ask(line.strip())

    def _show_turn(self, speaker: Speaker, turn: LoggedTurn) -> None:
        view = self._view(speaker)
        self._output.write("".join(f"> {line}\n" for line in turn.question.splitlines()))
        view.show(turn.reply)
        view.end()
        self._output.write("\n")

    def _show(self, answer: Answer) -> View:
        if self._interactive and answer.speaker is not self._commands.speakers[0]:
            self._output.write("\n")
        view = self._view(answer.speaker)
        view.show("")
        return view

    def _view(self, speaker: Speaker) -> View:
        if len(self._commands.speakers) > 1:
            name = visible(speaker.site.label)
            bold = self._console is not None and not self._console.no_color
            self._output.draw(f"\x1b[1m{name}\x1b[0m\n" if bold else f"{name}:\n")
        if self._console is None:
            return PlainView(self._output)
        return MarkdownView(self._output, self._console)

    async def _keep(self) -> None:
        if self._store is None:
            return
        chat = [speaker.kept for speaker in self._commands.speakers]
        try:
            await to_thread.run_sync(self._store.save, chat)
        except StoreError as error:
            say(f"this chat is no longer logged: {error}")
            self._store = None


def tell(text: str) -> None:
    """Write lines to stderr, without the name of the command."""
    with suppress(OSError):
        click.echo(visible(text), err=True)
