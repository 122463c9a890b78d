"""The directive `{command-help} gprochat ask`: the output of `gprochat ask --help`."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gprochat_anyio.cli._main import gprochat


class CommandHelp(SphinxDirective):
    """The directive `{command-help}`."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the command line and its output, as a block."""
        program, *command = self.arguments
        ran = CliRunner().invoke(
            gprochat, [*command, "--help"], prog_name=program, terminal_width=80, color=False
        )
        if ran.exit_code:
            raise self.error(ran.output)
        shown = f"$ {' '.join([program, *command, '--help'])}\n{ran.output}"
        return [nodes.literal_block(shown, shown, language="text")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
