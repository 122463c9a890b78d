"""What a chat does at a line that begins with a slash."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from anyio import to_thread

from ._config import ConfigError
from ._speaker import Answer, Speaker

OpenSpeakers = Callable[[Sequence[str], Sequence[Speaker]], Awaitable[list[Speaker]]]
"""Opens the named sites, to go on with what was said to those of before."""


class CommandError(Exception):
    """A command can not be done; nothing has changed."""


class LeaveChat(Exception):  # noqa: N818 - no error
    """A command leaves the chat."""


class _Command(NamedTuple):
    argument: str
    does: str


COMMANDS: Final = {
    "/retry": _Command("", "ask the last question again"),
    "/undo": _Command("", "forget the last turn"),
    "/save": _Command("FILE", "write the conversation to a JSON file"),
    "/load": _Command("FILE", "go on with a conversation from a file"),
    "/system": _Command("[TEXT | off]", "show, set or drop the instructions"),
    "/site": _Command("[NAME ...]", "show the sites, or have others answer from now on"),
    "/help": _Command("", "show this"),
    "/quit": _Command("", "leave; so does Ctrl-D"),
}
_KEYS: Final = """\
Enter sends; Alt-Enter, or a backslash before Enter, begins a new line.
Ctrl-C stops a reply, or clears the line; twice, it leaves.
A space before the slash makes a question of it."""


class Commands:
    """The commands of a chat.

    :param speakers: those who answer
    :param sites: the names that `/site` knows
    :param open_speakers: for `/site`
    :param tell: shows a text to the person
    """

    def __init__(
        self,
        speakers: Sequence[Speaker],
        *,
        sites: Sequence[str],
        open_speakers: OpenSpeakers,
        tell: Callable[[str], None],
    ) -> None:
        self.speakers = list(speakers)
        self._sites = sites
        self._open_speakers = open_speakers
        self._tell = tell
        self._own_files: set[Path] = set()

    async def run(self, line: str) -> list[Answer]:
        """Do what a line says; the answers that this brings.

        :raises CommandError: if that can not be
        :raises LeaveChat: to leave
        """
        name, _, argument = line.strip().partition(" ")
        command = COMMANDS.get(name)
        if command is None:
            raise CommandError(f"there is no command {name}; /help shows them")
        argument = argument.strip()
        if argument and not command.argument:
            raise CommandError(f"{name} takes nothing else")
        if not argument and command.argument == "FILE":
            raise CommandError(f"which file? {name} FILE")
        return await getattr(self, f"_{name[1:]}")(argument) or []

    async def _retry(self, _: str) -> list[Answer]:
        try:
            return [speaker.retry() for speaker in self.speakers]
        except RuntimeError:
            raise CommandError("there is no question yet to ask again") from None

    async def _undo(self, _: str) -> None:
        undone = [speaker.undo() for speaker in self.speakers]
        if not any(undone):
            raise CommandError("there is no turn to forget")
        self._tell("forgot the last turn")

    async def _save(self, argument: str) -> None:
        several = len(self.speakers) > 1
        for number, speaker in enumerate(self.speakers, 1):
            path = _path(argument)
            if several:
                path = path.with_name(f"{path.stem}.{speaker.site.name or number}{path.suffix}")
            text = speaker.conversation.to_json() + "\n"
            try:
                await to_thread.run_sync(self._write, path, text)
            except FileExistsError:
                raise CommandError(f"{path} exists: give another name") from None
            except OSError as error:
                raise CommandError(f"can not write {path}: {error.strerror}") from None
            self._own_files.add(path)
            self._tell(f"saved to {path}")

    async def _load(self, argument: str) -> None:
        path = _path(argument)
        try:
            data = await to_thread.run_sync(path.read_bytes)
            for speaker in self.speakers:
                speaker.load(data)
        except OSError as error:
            raise CommandError(f"can not read {path}: {error.strerror}") from None
        except ValueError as error:
            raise CommandError(f"{path} is no conversation: {error}") from None
        self._own_files.add(path)
        self._tell(f"going on with {_turns(len(self.speakers[0].turns))} of {path}")

    async def _system(self, argument: str) -> None:
        if not argument:
            system = self.speakers[0].conversation.system
            self._tell("no instructions; /system TEXT gives some" if system is None else system)
            return
        for speaker in self.speakers:
            try:
                speaker.conversation.system = None if argument == "off" else argument
            except ValueError as error:
                raise CommandError(str(error)) from None
        self._tell(
            "no instructions any more" if argument == "off" else "it goes with each question"
        )

    async def _site(self, argument: str) -> None:
        if argument:
            try:
                self.speakers = await self._open_speakers(argument.split(), self.speakers)
            except ConfigError as error:
                raise CommandError(error.message) from None
            except ValueError as error:  # a setting that can not be
                raise CommandError(str(error)) from None
        asked = ", ".join(speaker.site.label for speaker in self.speakers)
        known = ", ".join(self._sites) or "none"
        self._tell(f"asking {asked}" + ("" if argument else f"; in the configuration: {known}"))

    async def _help(self, _: str) -> None:
        rows = [(f"{name} {c.argument}".strip(), c.does) for name, c in COMMANDS.items()]
        width = max(len(usage) for usage, _ in rows)
        self._tell("\n".join([*(f"{usage:{width}}  {does}" for usage, does in rows), _KEYS]))

    async def _quit(self, _: str) -> None:
        raise LeaveChat

    def _write(self, path: Path, text: str) -> None:
        """Others may not read it, and nothing is lost that this chat has not written itself."""
        again = path in self._own_files
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if again else os.O_EXCL)
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)


def _path(argument: str) -> Path:
    return Path(argument).expanduser()


def _turns(count: int) -> str:
    return f"{count} turn" if count == 1 else f"{count} turns"
