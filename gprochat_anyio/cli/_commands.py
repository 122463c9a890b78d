"""The slash commands of a chat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from textwrap import shorten
from typing import Final, NamedTuple, Protocol

import click
from anyio import to_thread

from ._clipboard import ClipboardError, copy, last_code_block
from ._config_file import ConfigError
from ._output import visible
from ._saved_files import FileError, SavedFiles
from ._speaker import Answer, Speaker


class SpeakerSource(Protocol):
    """A source of speakers."""

    @property
    def sites(self) -> Sequence[str]:
        """The names that `/site` accepts."""
        ...

    @property
    def models(self) -> Sequence[str]:
        """The names that `/model` accepts, besides those of an API's models."""
        ...

    async def of_sites(self, names: Sequence[str], before: Sequence[Speaker]) -> list[Speaker]:
        """Return the speakers of the named sites, which continue the turns of those before."""
        ...

    async def of_model(self, name: str, before: Sequence[Speaker]) -> list[Speaker]:
        """Return the speaker of a model, which continues the turns of the first one before."""
        ...


class CommandError(Exception):
    """Failure of a command, which has changed nothing."""


class LeaveChat(Exception):  # noqa: N818 - not an error
    """Request of a command to leave the chat."""


class _Command(NamedTuple):
    argument: str
    does: str


COMMANDS: Final = {
    "/retry": _Command("", "ask the last question again"),
    "/undo": _Command("", "take back the last turn"),
    "/edit": _Command("[TEXT]", "write the next question in $EDITOR"),
    "/copy": _Command("", "copy the last code block to the clipboard"),
    "/new": _Command("", "start a new chat"),
    "/save": _Command("FILE", "write the conversation to a JSON file"),
    "/load": _Command("FILE", "continue a saved conversation, as a new chat"),
    "/system": _Command("[TEXT | off]", "show, set or remove the instructions"),
    "/model": _Command("[NAME]", "show the model, or switch to another one"),
    "/site": _Command("[NAME ...]", "show the sites, or switch to others"),
    "/help": _Command("", "show this list"),
    "/exit": _Command("", "leave, as /quit and Ctrl-D do"),
}
_ALIASES: Final = {"/quit": "/exit"}
_KEYS: Final = """\
Enter sends. Alt-Enter, or a backslash before Enter, starts a new line.
Ctrl-C stops a reply, or clears the line. Pressed twice, it leaves.
Ctrl-D during a reply leaves when the reply has ended.
A line with a space before the slash is sent as a question."""


class Commands:
    """The commands of a chat.

    :param speakers: The speakers that the chat starts with.
    :param source: Provides other speakers.
    :param tell: Shows a text to the user.
    :param begin: Called when a new chat starts.
    :param draw: Writes to the terminal. None without one.
    """

    def __init__(
        self,
        speakers: Sequence[Speaker],
        *,
        source: SpeakerSource,
        tell: Callable[[str], None],
        begin: Callable[[], None],
        draw: Callable[[str], None] | None,
    ) -> None:
        self.speakers = list(speakers)
        self._source = source
        self._tell = tell
        self._begin = begin
        self._draw = draw
        self._files = SavedFiles()
        self._question = self._last_answered()

    def ask(self, question: str) -> list[Answer]:
        """Ask all speakers, and return their answers, which have not started yet."""
        self._question = question
        return [speaker.ask(question) for speaker in self.speakers]

    async def run(self, line: str) -> list[Answer]:
        """Run a command, and return the answers that it requests.

        :raises CommandError: If the command fails. The message says what to do.
        :raises LeaveChat: If the command leaves the chat.
        """
        name, _, argument = line.strip().partition(" ")
        name = _ALIASES.get(name, name)
        command = COMMANDS.get(name)
        if command is None:
            raise CommandError(f"there is no command {name}; /help lists them")
        argument = argument.strip()
        if argument and not command.argument:
            raise CommandError(f"{name} takes no argument")
        if not argument and command.argument == "FILE":
            raise CommandError(f"name a file: {name} FILE")
        return await getattr(self, f"_{name[1:]}")(argument) or []

    async def _retry(self, _: str) -> list[Answer]:
        question = self._question
        if question is None:
            raise CommandError("there is no question to ask again yet")
        return [speaker.retry(question) for speaker in self.speakers]

    async def _undo(self, _: str) -> None:
        question = self._last_answered()
        if question is None:
            raise CommandError("there is no turn to undo")
        for speaker in self.speakers:  # one without a reply to it keeps its turns
            speaker.undo(question)
        self._question = self._last_answered()
        self._tell(f"undone: {shorten(question, 60, placeholder=' ...')}")

    async def _edit(self, argument: str) -> list[Answer]:
        if self._draw is None:
            raise CommandError("/edit needs a terminal")
        try:
            text = await to_thread.run_sync(_edited, f"{argument}\n" if argument else "")
        except UnicodeDecodeError:
            raise CommandError("the editor saved no UTF-8 text; nothing was asked") from None
        except (click.ClickException, ValueError) as error:  # ValueError: a quote without its end
            reason = getattr(error, "message", None) or f"cannot start the editor: {error}"
            raise CommandError(f"{reason}; set EDITOR to the editor to use") from None
        if not text.strip():
            raise CommandError("the editor saved no question; nothing was asked")
        self._tell("".join(f"> {line}\n" for line in text.strip().splitlines()).rstrip("\n"))
        return self.ask(text.strip())

    async def _copy(self, _: str) -> None:
        replies = (turn.reply for s in self.speakers for turn in reversed(s.turns))
        block = next((b for reply in replies if (b := last_code_block(reply)) is not None), None)
        if block is None:
            raise CommandError("there is no code block in this chat yet")
        try:
            # Where it is pasted, a control character could act as a key.
            await to_thread.run_sync(copy, visible(block), self._draw)
        except ClipboardError as error:
            raise CommandError(str(error)) from None
        count = len(block.splitlines())
        self._tell(f"copied {count} line{'' if count == 1 else 's'}")

    async def _new(self, _: str) -> None:
        self._go_on([speaker.emptied() for speaker in self.speakers])
        self._tell("this is a new chat")

    async def _save(self, argument: str) -> None:
        try:
            for path in await self._files.save(argument, self.speakers):
                self._tell(f"saved to {path}")
        except FileError as error:
            raise CommandError(str(error)) from None

    async def _load(self, argument: str) -> None:
        try:
            path, speakers = await self._files.load(argument, self.speakers)
        except FileError as error:
            raise CommandError(str(error)) from None
        self._go_on(speakers)
        count = len(self.speakers[0].turns)
        self._tell(f"this is a new chat, with {count} turn{'' if count == 1 else 's'} from {path}")

    async def _system(self, argument: str) -> None:
        if not argument:
            system = self.speakers[0].conversation.system
            self._tell(
                "there are no instructions; /system TEXT sets them" if system is None else system
            )
            return
        for speaker in self.speakers:
            try:
                speaker.conversation.system = None if argument == "off" else argument
            except ValueError as error:
                raise CommandError(str(error)) from None
        self._tell(
            "instructions removed" if argument == "off" else "instructions set for each question"
        )

    async def _model(self, argument: str) -> None:
        if argument:
            await self._switch(self._source.of_model(argument, self.speakers))
        asked = ", ".join(speaker.site.model or speaker.site.label for speaker in self.speakers)
        known = ", ".join(self._source.models)
        self._tell(f"asking {asked}" + ("" if argument else f"; /model takes {known}"))

    async def _site(self, argument: str) -> None:
        if argument:
            await self._switch(self._source.of_sites(argument.split(), self.speakers))
        asked = ", ".join(speaker.site.label for speaker in self.speakers)
        known = ", ".join(self._source.sites) or "none"
        self._tell(f"asking {asked}" + ("" if argument else f"; in the configuration: {known}"))

    async def _help(self, _: str) -> None:
        rows = [(f"{name} {c.argument}".strip(), c.does) for name, c in COMMANDS.items()]
        width = max(len(usage) for usage, _ in rows)
        self._tell("\n".join([*(f"{usage:{width}}  {does}" for usage, does in rows), _KEYS]))

    async def _exit(self, _: str) -> None:
        raise LeaveChat

    async def _switch(self, opening: Awaitable[list[Speaker]]) -> None:
        try:
            speakers = await opening
        except ConfigError as error:
            raise CommandError(error.message) from None
        except (ImportError, ValueError) as error:  # an invalid setting, a missing key
            raise CommandError(str(error)) from None
        if speakers != self.speakers:
            self._go_on(speakers)

    def _go_on(self, speakers: Sequence[Speaker]) -> None:
        """Start a new chat with these speakers and their turns."""
        self._begin()
        self.speakers = list(speakers)
        for speaker in self.speakers:
            speaker.begin()
        self._question = self._last_answered()

    def _last_answered(self) -> str | None:
        """Return the last question that any speaker has answered."""
        last = [turns[-1] for speaker in self.speakers if (turns := speaker.turns)]
        return max(last, key=lambda turn: turn.asked or 0).question if last else None


def _edited(text: str) -> str:
    """Return the text as saved in an editor."""
    return click.edit(text, extension=".md") or ""
