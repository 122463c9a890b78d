"""A fast site for batches: in the test's event loop, or in a thread for commands."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio.from_thread import start_blocking_portal

from gprochat_anyio.testing import Request, Script, live_site

from .raw_site import BOUND

Answer = Callable[[Request], Script]


def echo(request: Request) -> Script:
    """Reply with the prompt."""
    return f"re: {request.prompt}"


class BatchSite:
    """A site that records its prompts. Its `answer` may be replaced."""

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.answer = answer
        self._more = threading.Condition()

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.asked)

    def wait_for(self, count: int) -> None:
        """Wait, in another thread, for a number of requests."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.asked) >= count, BOUND)

    def __call__(self, request: Request) -> Script:
        with self._more:
            self.asked.append(request.prompt)
            self._more.notify_all()
        return self.answer(request)


@asynccontextmanager
async def batch_site(
    answer: Answer = echo, site: BatchSite | None = None
) -> AsyncIterator[BatchSite]:
    """Serve a site in this event loop."""
    site = site or BatchSite(answer)
    async with live_site(site) as served:
        site.url = served.url
        yield site


@contextmanager
def batch_site_in_thread(
    answer: Answer = echo, site: BatchSite | None = None
) -> Iterator[BatchSite]:
    """Serve a site in a thread."""
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(batch_site(answer, site)) as served:
            yield served
