"""`gprochat help` and `--help`: the help of a command."""

from __future__ import annotations

import click

from ._exit_codes import print_and_exit


def show_help(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Show the help of a command, as the callback of its option."""
    if value and not ctx.resilient_parsing:
        print_and_exit(ctx, ctx.get_help())


help_option = click.help_option("-h", "--help", callback=show_help)


def _commands(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    return [name for name in group.list_commands(ctx) if name.startswith(incomplete)]


@click.command(short_help="Show the help of a command.")
@click.argument("name", metavar="[COMMAND]", required=False, shell_complete=_commands)
@help_option
@click.pass_context
def help(ctx: click.Context, /, *, name: str | None) -> None:  # noqa: A001 - the command's name
    """Show the help of COMMAND, or the list of commands."""
    above = ctx.find_root()
    group = above.command
    assert isinstance(group, click.Group)
    if name is None:
        print_and_exit(ctx, group.get_help(above))
    command = group.get_command(above, name)
    if command is None:
        known = ", ".join(group.list_commands(above))
        raise click.UsageError(f"there is no command {name!r}; there are {known}.")
    shown = command.get_help(click.Context(command, parent=above, info_name=name))
    print_and_exit(ctx, shown)
