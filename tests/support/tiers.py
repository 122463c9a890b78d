"""The tiers of the suite, and the choice of event loops: the selection of the collected tests."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from .loops import LOOPS, VIRTUAL_LOOPS

LOOP_NAMES = [str(param.id) for param in LOOPS]

EXAMPLES = {"quick": 10, "suite": 50, "full": 1000}
"""Number of a property's examples in each tier. Each tier is also a profile of Hypothesis."""

PARAMETERS = 4
"""Maximum number of a test's parameters in the quick tier."""


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("gprochat_anyio's own suite")
    group.addoption(
        "--loop",
        action="append",
        choices=LOOP_NAMES,
        help="Run the async tests on this event loop only. May be given more than once.",
    )
    tier = "Run the {}."
    group.addoption(
        "--quick",
        action="store_const",
        dest="tier",
        const="quick",
        default="suite",
        help=tier.format("quick tier: no slow test, one event loop and some parameters for each"),
    )
    group.addoption(
        "--full",
        action="store_const",
        dest="tier",
        const="full",
        help=tier.format("suite with more examples, sizes and pairs of suspensions"),
    )


def load_profile(tier: str) -> None:
    """Load the tier's Hypothesis profile. `--hypothesis-profile` takes precedence."""
    for name, number in EXAMPLES.items():
        # On a busy machine, an example with an event loop may exceed Hypothesis's deadline.
        unchecked = [HealthCheck.too_slow]
        settings.register_profile(
            name, max_examples=number, deadline=None, suppress_health_check=unchecked
        )
    settings.load_profile(tier)


def examples(factor: float) -> settings:
    """Return Hypothesis's settings with a multiple of the tier's examples."""
    return settings(max_examples=max(1, round(factor * settings().max_examples)))


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests according to the options."""
    loops, tier = config.getoption("loop"), config.getoption("tier")
    kept = [item for item in items if tier == "full" or not item.get_closest_marker("full")]
    kept = [item for item in kept if not _needs_windows_and_uvloop(item)]
    if loops:
        kept = [item for item in kept if _main_loop(item) in {None, *loops}]
    if tier == "quick":
        kept = _on_one_loop(item for item in kept if not item.get_closest_marker("slow"))
        kept = _spread(kept)
    remaining = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in remaining])
    items[:] = kept


def _on_one_loop(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Choose one event loop for each test, the same in every run. It varies with the parameters."""
    groups = _grouped(items, lambda item: item.nodeid.replace(_loop(item) or "", "", 1))
    return [group[zlib.crc32(name.encode()) % len(group)] for name, group in groups]


def _spread(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Choose evenly spaced parameters of a test that has many."""
    kept: list[pytest.Item] = []
    for _, group in _grouped(items, lambda item: item.nodeid.partition("[")[0]):
        step = max(1, len(group) / PARAMETERS)
        kept += [group[int(number * step)] for number in range(min(len(group), PARAMETERS))]
    return kept


def _grouped(
    items: Iterable[pytest.Item], key: Callable[[pytest.Item], str]
) -> Iterable[tuple[str, list[pytest.Item]]]:
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups.items()


def _needs_windows_and_uvloop(item: pytest.Item) -> bool:
    """Return True for reader tasks, which only Windows needs, on uvloop, which it does not have."""
    callspec: Any = getattr(item, "callspec", None)
    tasks = callspec is not None and callspec.params.get("reader_tasks") == "tasks"
    return tasks and _loop(item) == "asyncio+uvloop"


def _main_loop(item: pytest.Item) -> str | None:
    """Return a test's event loop, in real or in virtual time."""
    loop = _loop(item)
    return None if loop is None else loop.removesuffix("-virtual")


def _loop(item: pytest.Item) -> str | None:
    """Return a test's event loop by its name in `LOOPS` or `VIRTUAL_LOOPS`."""
    callspec: Any = getattr(item, "callspec", None)
    if callspec is None or "anyio_backend" not in callspec.params:
        return None
    backend = callspec.params["anyio_backend"]
    named = (str(p.id) for p in [*LOOPS, *VIRTUAL_LOOPS] if p.values[0] == backend)
    return next(named, None)
