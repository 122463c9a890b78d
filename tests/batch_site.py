"""A quick site for batches: in the test's event loop, or in a thread for commands."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio.from_thread import start_blocking_portal
from raw_site import BOUND

from gprochat_anyio.testing import Request, Script, live_site

Answer = Callable[[Request], Script]


def echo(request: Request) -> Script:
    """Every reply tells its prompt."""
    return f"re: {request.prompt}"


class BatchSite:
    """Answers by `answer`, which may change, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.answer = answer
        self._more = threading.Condition()

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.asked)

    def wait_for(self, count: int) -> None:
        """Wait, in another thread, until it was asked so often."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.asked) >= count, BOUND)

    def __call__(self, request: Request) -> Script:
        with self._more:
            self.asked.append(request.prompt)
            self._more.notify_all()
        return self.answer(request)


@asynccontextmanager
async def batch_site(answer: Answer = echo) -> AsyncIterator[BatchSite]:
    """A site in this event loop, for the time of the block."""
    site = BatchSite(answer)
    async with live_site(site) as served:
        site.url = served.url
        yield site


@contextmanager
def batch_site_in_thread(answer: Answer = echo) -> Iterator[BatchSite]:
    """A site in a thread, for the time of the block."""
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(batch_site(answer)) as site:
            yield site
