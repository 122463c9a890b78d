"""The command group."""

from __future__ import annotations

import click

from gprochat_anyio._version import __version__

from ._ask import ask
from ._serve import serve


@click.group()
@click.version_option(__version__, message="%(prog)s %(version)s")
def gprochat() -> None:
    """Chat with GPROChat sites, or be one."""


gprochat.add_command(ask)
gprochat.add_command(serve)
