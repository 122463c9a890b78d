"""Batches on a Ray cluster: `run_on_ray`, and `PromptMapper` for Ray Data.

Importing this needs the extra `ray`.
"""

# pyright: reportMissingImports=false

try:
    import ray as ray  # noqa: PLC0414 - for the commands
except ModuleNotFoundError as _error:
    if _error.name != "ray":
        raise
    raise ImportError(
        "gprochat_anyio.batch.on_ray needs Ray: pip install 'gprochat-anyio[ray]', here and on "
        "each node of the cluster"
    ) from None

from ._prompt_mapper import PromptMapper
from ._run_on_ray import run_on_ray

__all__ = ["PromptMapper", "run_on_ray"]
