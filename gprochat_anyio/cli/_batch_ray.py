"""`gprochat batch --ray`: a batch on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from anyio import to_thread

from gprochat_anyio.batch._shards import read_plan

from ._site import Site

_AT_ONCE: Final = 16
"""Concurrent prompts of a shard, unless a limit for all shards is given."""

_SHARDS_PER_CPU: Final = 4
"""Several for each worker: shards differ in speed, and the last one should not take long."""


class RayCluster(NamedTuple):
    """The cluster that this process is connected to, and the division of a batch there."""

    shards: int | None
    """Number of shards. None for that of the batch so far, or a default."""
    max_at_once: int | None
    """Maximum number of concurrent prompts of all shards together."""

    async def ask(
        self,
        asked: Site,
        source: Any,
        folder: str | Path,
        **settings: Any,
    ) -> None:
        """Ask all prompts of the files. Cancellation leaves the shards to the end of the process.

        :raises Exception: As `run_on_ray`.
        """
        from gprochat_anyio.batch.on_ray import run_on_ray  # noqa: PLC0415 - an extra

        at_once = self.max_at_once or _AT_ONCE
        run = partial(
            run_on_ray,
            partial(asked.client, max_connections=at_once),
            source,
            folder,
            shards=self.shards or _shards_in(Path(folder)),
            max_at_once_per_shard=at_once,
            **settings | {"max_at_once": self.max_at_once},
        )
        await to_thread.run_sync(run, abandon_on_cancel=True)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster for the duration of the block.

    :param address: None for no cluster. Empty for that of RAY_ADDRESS, or one on this machine.
    :raises ImportError: If Ray is not installed.
    :raises OSError: If the cluster does not exist.
    """
    if address is None:
        yield
        return
    ray = _ray()
    ray.init(address=address or None, log_to_driver=False, logging_level="error")
    try:
        yield
    finally:
        ray.shutdown()


def check_ray_usage(ctx: click.Context) -> None:
    """Check the arguments that need `--ray`, or exclude it.

    :raises click.UsageError: If they contradict each other.
    """
    if ctx.params["ray"] is None:
        if ctx.params["shards"] is not None:
            raise click.UsageError(
                "--shards needs --ray; to run one of N shards, give --shard I/N."
            )
        return
    for name in ("shard", "merge", "limit"):
        if ctx.params[name] is not None:
            raise click.UsageError(f"--ray and --{name} exclude each other; give one.")
    if "-" in ctx.params["inputs"]:
        raise click.UsageError("--ray takes files, not stdin: each worker reads them.")


def cluster_of(ctx: click.Context) -> RayCluster | None:
    """Return the division of a batch on a cluster. None without `--ray`."""
    if ctx.params["ray"] is None:
        return None
    source = ctx.get_parameter_source("max_at_once")
    is_given = source is not click.core.ParameterSource.DEFAULT
    return RayCluster(ctx.params["shards"], ctx.params["max_at_once"] if is_given else None)


def _shards_in(folder: Path) -> int:
    try:
        return read_plan(folder).of
    except FileNotFoundError:
        return _SHARDS_PER_CPU * max(int(_ray().cluster_resources().get("CPU", 1)), 1)


def _ray() -> Any:
    """Return the module `ray`.

    :raises ImportError: If it is not installed. The message names the extra.
    """
    from gprochat_anyio.batch import on_ray  # noqa: PLC0415 - an extra

    return on_ray.ray
