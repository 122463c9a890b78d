"""`gprochat completion`: completion scripts for shells."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from ._exit_codes import print_and_exit
from ._help import help_option

_EPILOG: Final = """\b
bash: eval "$(gprochat completion bash)" in ~/.bashrc
zsh:  eval "$(gprochat completion zsh)" in ~/.zshrc, after compinit
fish: gprochat completion fish > ~/.config/fish/completions/gprochat.fish"""


@click.command(epilog=_EPILOG, short_help="Print a completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@help_option
@click.pass_context
def completion(ctx: click.Context, /, *, shell: str) -> None:
    """Print a script that completes commands, options and sites in SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None
    group = ctx.find_root().command
    print_and_exit(ctx, kind(group, {}, "gprochat", "_GPROCHAT_COMPLETE").source())
