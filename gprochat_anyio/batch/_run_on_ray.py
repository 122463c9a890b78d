"""`run_on_ray`: all shards of a batch, on a Ray cluster."""

# pyright: reportMissingImports=false

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gprochat_anyio import Client, Fleet, Limiter, Timeouts

from ._ray_driver import ShardTasks
from ._ray_tasks import CoordinatorActor, run_leased_shard
from ._records import Format
from ._shards import Shard
from ._source_files import files_of
from ._summary import BatchSummary


class ShardOptions(TypedDict, total=False):
    """Arguments of `run_shard` that a batch on Ray passes on."""

    timeouts: Timeouts | None
    sync_every: float
    retry_failed: bool
    format: Format | None
    site: str | None
    any_site: bool
    give_up_after: int | None
    backend: Literal["asyncio", "trio"]


remote: Any = ray.remote  # its types do not support keyword-only parameters


def run_on_ray(
    make_client: Callable[[], Client | Fleet],
    source: Any,
    folder: str | os.PathLike[str],
    *,
    shards: int,
    max_at_once: int | None = None,
    max_per_second: float | None = None,
    max_at_once_per_shard: int = 16,
    adaptive: bool = True,
    max_retries: int = 3,
    task_options: Mapping[str, Any] | None = None,
    on_progress: Callable[[BatchSummary], object] | None = None,
    stop: Callable[[], bool] | None = None,
    grace: float = 10.0,
    **options: Unpack[ShardOptions],
) -> BatchSummary:
    """Ask every prompt of `source` on a Ray cluster. This blocks until all shards have ended.

    Each shard is a Ray task that calls `run_shard`. If its worker or node is lost, Ray runs the
    task again, on another node if necessary. As with `run_batch`, a later run with the same
    arguments asks only the prompts that have no line yet.

    An actor leases starts to the shards, so that the limits hold for all of them together. A shard
    that is lost keeps its share for at most 10 seconds. If an endpoint refuses a request with
    status 429 and a `Retry-After`, all shards pause that endpoint for that time.

    This uses the process's connection to a cluster, or connects as `ray.init()` does. `source` and
    `folder` must be the same files on each node. Relative paths are relative to this process's
    working directory.

    The first Ctrl-C stops the batch as `stop` does, and `KeyboardInterrupt` is raised once the
    shards have ended. The second Ctrl-C kills the shards. The next run continues in both cases.

    :param make_client: Function without arguments that returns a client or fleet, called in each
        worker. Ray sends it there. It may read keys from the worker's environment, or contain them:
        Ray logs neither the function nor its contents. It does show a `runtime_env`.
    :param source: A path, a pattern, a list of `Path` objects or a list of prompts.
    :param folder: The folder of all shards' output, as for `run_shard`.
    :param shards: The number of shards, the same for every run with this folder. The cluster's
        resources limit how many run at a time.
    :param max_at_once: Maximum number of concurrent requests of all shards. `None` for no limit
        except `max_at_once_per_shard`.
    :param max_per_second: Maximum number of starts per second of all shards, including retries.
        `None` for no limit.
    :param max_at_once_per_shard: Maximum number of concurrent requests of each shard.
    :param adaptive: See `Limiter`. A refusal without a `Retry-After` lowers the limit of the
        refused shard only.
    :param max_retries: Maximum number of times that Ray runs a shard again if its process is lost.
    :param task_options: Ray's options for the tasks, such as `num_cpus` (default 1) or `resources`.
    :param on_progress: Called with the summary of all shards so far, four times a second and at the
        end of the run, even if it fails. It lacks the latencies of running shards. Prompts that a
        lost process has answered count as answered before.
    :param stop: Called four times a second. Once it returns true, no more prompts are started.
    :param grace: Time that running prompts have after a stop, in seconds.
    :param options: Arguments of `run_shard`: `timeouts`, `sync_every`, `retry_failed`, `format`,
        `site`, `any_site`, `give_up_after` and `backend`.
    :raises ShardLostError: If a shard's process was lost more than `max_retries` times. The other
        shards end first, as with the following exceptions of a shard.
    :raises OutputError: See `run_shard`.
    :raises OSError: If the source cannot be read, or the folder cannot be written.
    :raises ValueError: If an argument is invalid. The message names it.
    :raises Exception: Any exception of `make_client`.
    """
    Limiter(  # only to check the arguments
        max_at_once=max_at_once, max_per_second=max_per_second, adaptive=adaptive
    )
    check_counts(max_at_once_per_shard=(max_at_once_per_shard, 1), max_retries=(max_retries, 0))
    if not grace >= 0:
        raise ValueError("grace must be a number of seconds, at least 0")
    files = files_of(source)
    if files is not None:
        source = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100 - keeps links
        source = source[0] if len(source) == 1 else source
    elif not isinstance(source, list | tuple):
        raise ValueError("source: give paths or a list; other processes cannot read anything else")
    folder = os.path.abspath(folder)  # noqa: PTH100
    Shard(source, folder, shard=0, of=shards)  # only to check the arguments
    coordinator = _start_coordinator(
        shards, max_at_once, max_per_second, most=max_at_once_per_shard
    )
    task = remote(run_leased_shard).options(
        **{
            "name": "gprochat shard",
            "max_retries": max_retries,
            "num_cpus": 1,
            "scheduling_strategy": "SPREAD",
            **(task_options or {}),
        }
    )
    given = ray.put((make_client, source))  # once for all tasks
    with ShardTasks(coordinator, on_progress, stop, grace) as tasks:
        tasks.count(source, files)
        for shard in range(shards):
            tasks.add(
                shard,
                task.remote(
                    coordinator,
                    given,
                    folder,
                    shard=shard,
                    limits={
                        "most": max_at_once_per_shard,
                        "has_rate": max_per_second is not None,
                        "adaptive": adaptive,
                    },
                    options={"of": shards, "grace": grace, **options},
                ),
            )
        return tasks.wait()


def _start_coordinator(shards: int, *limits: float | None, most: int) -> Any:
    return (
        remote(CoordinatorActor)
        .options(
            name=f"gprochat-batch-{uuid4().hex[:8]}",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=4 * shards + 16,
            # on the driver's node: no other node's loss then ends the coordinator
            scheduling_strategy=NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=True
            ),
        )
        .remote(*limits, most=most)
    )


def check_counts(**counts: tuple[object, int]) -> None:
    """Check arguments that are counts.

    :param counts: The value and the minimum of each argument, by name.
    :raises ValueError: If one is invalid. The message names it.
    """
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}")
