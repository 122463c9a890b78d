"""The Ray tasks of a batch's shards, and the coordinator's actor."""

# pyright: reportMissingImports=false

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError

from gprochat_anyio import Client, Fleet
from gprochat_anyio._request.request_events import Observed

from ._batch_errors import OutputBusyError
from ._coordinator import Coordinator, Lease, Report
from ._lease_book import LEASED_FOR
from ._lease_keeper import LeaseKeeper
from ._run_shard import run_shard
from ._summary import BatchSummary

BUSY_FOR: Final = 60.0
"""Time that a file server may take to release a killed process's lock, in seconds."""

_CHECK_EVERY: Final = 0.5

UNANSWERED: Final = (ActorUnavailableError, GetTimeoutError)
"""Errors of calls to a coordinator that is restarting or unreachable."""


class CoordinatorActor(Coordinator):
    """Coordinator as a Ray actor. After a restart, it first learns the existing leases."""

    def __init__(self, max_at_once: int | None, max_per_second: float | None, *, most: int) -> None:
        with warnings.catch_warnings(action="ignore"):  # Ray uses its own deprecated functions
            is_second = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        super().__init__(max_at_once, max_per_second, most=most, is_second=is_second)


class RayLessor:
    """Connection of one shard to the coordinator's actor."""

    def __init__(self, coordinator: Any, shard: int) -> None:
        self._coordinator = coordinator
        self._shard = shard
        self._watch: Any = None

    def is_stopped(self) -> bool:
        """Return True once the batch is stopped."""
        while True:
            try:
                return bool(ray.get(self._coordinator.is_stopped.remote()))
            except ActorUnavailableError:
                time.sleep(_CHECK_EVERY)

    def renew(self, report: Report) -> Lease | None:
        try:
            lease: Lease = ray.get(
                self._coordinator.renew.remote(self._shard, report), timeout=LEASED_FOR
            )
        except UNANSWERED:
            return None
        return lease

    def wait(self, version: int, seconds: float) -> None:
        if self._watch is None:
            self._watch = self._coordinator.watch.remote(version)
        ready, _ = ray.wait([self._watch], timeout=seconds)
        if ready:
            self._watch = None

    def pause(self, endpoint: Observed, seconds: float) -> None:
        self._coordinator.pause.remote(endpoint, seconds)

    def release(self) -> None:
        self._coordinator.release.remote(self._shard)


def run_leased_shard(
    coordinator: Any,
    given: tuple[Callable[[], Client | Fleet], Any],
    folder: str,
    *,
    shard: int,
    limits: dict[str, Any],
    options: dict[str, Any],
) -> BatchSummary | None:
    """Run a shard with the limits that the coordinator leases to it.

    :param given: The function that returns a client, and the source.
    :param limits: Arguments of `LeaseKeeper`.
    :param options: Arguments of `run_shard`.
    :returns: `None` if the batch was stopped before the shard began.
    """
    make_client, source = given
    busy_until = time.monotonic() + BUSY_FOR
    lessor = RayLessor(coordinator, shard)
    while not lessor.is_stopped():
        try:
            with LeaseKeeper(lessor, **limits) as keeper:
                return run_shard(
                    partial(keeper.client_of, make_client),
                    source,
                    folder,
                    shard=shard,
                    limiter=keeper.limiter,
                    max_at_once=keeper.limiter.max_at_once,
                    on_progress=keeper.set_summary,
                    stop=keeper.is_stopped,
                    **options,
                )
        except OutputBusyError:
            if time.monotonic() >= busy_until:
                raise
            time.sleep(_CHECK_EVERY)
    return None
