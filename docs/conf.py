"""Sphinx's configuration. `nox -s docs` builds the documentation; warnings are errors.

GPROCHAT_DOCS_OFFLINE=1 builds without a network, and so without links to other projects.
"""

import builtins
import os
import sys
from pathlib import Path

from gprochat_anyio import __version__

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent / "benchmarks")]

OFFLINE = bool(os.environ.get("GPROCHAT_DOCS_OFFLINE"))

project = "gprochat_anyio"
author = "The gprochat_anyio developers"
project_copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "benchmark_table",
    "command_help",
    "docstring_names",
    "other_projects",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_mock_imports = ["ray"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_type_aliases = {"Prompts": "gprochat_anyio.Prompts"}
autodoc_typehints_format = "short"
add_module_names = False
maximum_signature_line_length = 88
python_use_unqualified_type_names = True

nitpicky = True
intersphinx_timeout = 30
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "anyio": ("https://anyio.readthedocs.io/en/stable", None),
    "trio": ("https://trio.readthedocs.io/en/stable", None),
}
# Projects without an inventory: each name links to a page.
other_projects = {
    "httpx": "https://www.python-httpx.org/api/",
    "httpx2": "https://github.com/pydantic/httpx2",
    "opentelemetry.metrics": "https://opentelemetry-python.readthedocs.io/en/latest/api/metrics.html",
    "opentelemetry.trace": "https://opentelemetry-python.readthedocs.io/en/latest/api/trace.html",
    "starlette.applications": "https://starlette.dev/applications/",
}
nitpick_ignore_regex = [
    ("py:.*", r"(gprochat_anyio\..*\.)?_[A-Z]\w*"),  # type variables
    ("py:.*", r"AsyncTransport"),  # a transport of httpx or of httpx2
    ("py:.*", r"Backend"),  # "asyncio" or "trio"
    ("py:.*", r".*\.(Batch|Shard)Options"),  # arguments of run_batch
    ("py:.*", r".*\.ClientSettings"),  # arguments of Client
    ("py:.*", r".*\.Share"),  # a source's share of one shard
    ("py:.*", r".*\.FleetStream"),  # a ReplyStream with the client that has responded
    ("py:.*", r"Event"),  # Chunk, Finished or Failed
    ("py:.*", r"OnError"),  # "collect" or "raise"
]
if OFFLINE:
    intersphinx_mapping = {}
    nitpick_ignore_regex += [
        ("py:.*", r"(anyio|asyncio|collections|contextlib|os|pathlib|ssl|trio|typing)\..*"),
        ("py:.*", "|".join(dir(builtins))),
    ]

html_theme = "furo"
html_title = f"gprochat_anyio {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
# no button on output and drawings
copybutton_selector = "div:not(.highlight-text, .highlight-none) > div.highlight pre"

linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost|chat\.example\.org|proxy\.example\.org)"]
linkcheck_timeout = 30
