"""The command group."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any, Final

import click

from gprochat_anyio import InsecureSiteWarning, __version__

from ._exits import say

_COMMANDS: Final = ("ask", "batch", "chat", "check", "completion", "logs", "models", "serve")


class _Group(click.Group):
    """Each command is in the module of its name, and imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"._{cmd_name}", __package__), cmd_name)
        return command


@click.group(cls=_Group)
@click.version_option(__version__, message="%(prog)s %(version)s")
def gprochat() -> None:
    """Chat with GPROChat sites, or be one."""
    show = warnings.showwarning

    def say_it(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, InsecureSiteWarning):  # which line of ours warns is no matter
            say(str(message))
        else:
            show(message, category, *where, **more)

    warnings.showwarning = say_it
