"""Links to projects without an inventory for intersphinx: one page for all names of a module."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the setting and the handler."""
    app.add_config_value("other_projects", {}, "env", dict)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True}


def _resolve(
    app: Sphinx,
    env: BuildEnvironment,  # noqa: ARG001
    node: pending_xref,
    content: nodes.TextElement,
) -> nodes.reference | None:
    target = node.get("reftarget", "")
    for module, url in app.config.other_projects.items():
        if node.get("refdomain") == "py" and target.startswith(f"{module}."):
            return nodes.reference("", "", content, internal=False, refuri=url, reftitle=target)
    return None
