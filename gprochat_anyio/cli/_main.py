"""The command group."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any, Final

import click

from gprochat_anyio import InsecureSiteWarning, __version__

from ._exit_codes import ReadableUsageError, print_and_exit, say
from ._help import help_option

_COMMANDS: Final = (
    *("ask", "batch", "chat", "check", "completion", "help", "logs", "models", "serve"),
)


class _Group(click.Group):
    """A command group that imports the module of a command when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"._{cmd_name}", __package__), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise ReadableUsageError(error.format_message(), error.ctx or ctx) from None


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print_and_exit(ctx, f"gprochat {__version__}")


@click.group(cls=_Group)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@help_option
def gprochat() -> None:
    """Chat with GPROChat sites and the APIs of models, or serve a site.

    `gprochat ask "Hello"` needs no configuration: the embedded site replies.
    `gprochat help COMMAND` shows the options of a command.
    """
    show = warnings.showwarning

    def say_it(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, InsecureSiteWarning):  # without the source line
            say(str(message))
        else:
            show(message, category, *where, **more)

    warnings.showwarning = say_it
