"""What a chat does at a line that begins with a slash."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Final, NamedTuple

from anyio import to_thread

from ._config_file import ConfigError
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
        self._question = self._last_answered()

    def ask(self, question: str) -> list[Answer]:
        """The answers to come."""
        self._question = question
        return [speaker.ask(question) for speaker in self.speakers]

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
        question = self._question
        if question is None:
            raise CommandError("there is no question yet to ask again")
        return [speaker.retry(question) for speaker in self.speakers]

    async def _undo(self, _: str) -> None:
        question = self._last_answered()
        if question is None:
            raise CommandError("there is no turn to forget")
        for speaker in self.speakers:  # one that failed to answer it keeps the turns before
            speaker.undo(question)
        self._question = self._last_answered()
        self._tell(f"forgot: {shorten(question, 60, placeholder=' ...')}")

    async def _save(self, argument: str) -> None:
        for path, speaker in zip(self._files(argument), self.speakers, strict=True):
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
        files = [path] * len(self.speakers)
        if not await to_thread.run_sync(path.exists):  # /save has made one for each
            files = self._files(argument)
        loaded = []
        try:
            for path, speaker in zip(files, self.speakers, strict=True):
                loaded.append(speaker.loaded(await to_thread.run_sync(path.read_bytes)))
        except OSError as error:
            raise CommandError(f"can not read {path}: {error.strerror}") from None
        except ValueError as error:
            raise CommandError(f"{path} is no conversation: {error}") from None
        self.speakers = loaded
        self._own_files.update(files)
        self._question = self._last_answered()
        self._tell(f"going on with {_turns(len(self.speakers[0].turns))} of {files[0]}")

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

    def _last_answered(self) -> str | None:
        """The last question that has an answer, of any site."""
        last = [speaker.turns[-1] for speaker in self.speakers if speaker.turns]
        return max(last, key=lambda turn: turn.asked or 0).question if last else None

    def _files(self, argument: str) -> list[Path]:
        """A file for each site."""
        path = _path(argument)
        if len(self.speakers) == 1:
            return [path]
        names = [speaker.site.name or number for number, speaker in enumerate(self.speakers, 1)]
        return [path.with_name(f"{path.stem}.{name}{path.suffix}") for name in names]

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
