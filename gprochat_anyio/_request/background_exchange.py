"""Exchanges that run in a background task: over a foreign transport, or with a model."""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import anyio

from gprochat_anyio.transport._reactor import Reactor, current_reactor

from .response import IncomingResponse

_CLOSING_SECONDS = 1.0


class BackgroundExchange(ABC):
    """One request and its response, in a task with the caller's context variables."""

    proxy = None
    """Always `None`: there is no proxy, or only the exchange knows it."""

    def __init__(self, response: IncomingResponse) -> None:
        self.paused = False
        self.closed = False
        self._response = response
        self._reactor: Reactor = current_reactor()
        self._resumed = self._reactor.signal()
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    def start(self) -> None:
        """Start the task."""
        self._reactor.join()
        self._response.begin(self, self._reactor)
        self._reactor.spawn(self._run, "gprochat_anyio exchange", contextvars.copy_context())

    def look(self) -> None:  # noqa: B027 - deliberately empty
        """Do nothing, because the response already has all data that has arrived."""

    def pause(self) -> None:
        """Pause reading."""
        self.paused = True

    def resume(self) -> None:
        """Resume reading."""
        self.paused = False
        self._resumed.set()

    def close(self) -> None:
        """Cancel the task, which then closes its resources."""
        self.closed = True
        self._scope.cancel()

    async def wait_closed(self) -> None:
        """Wait until the task has ended, for at most a second."""
        with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
            await self._ended.wait()

    async def _run(self) -> None:
        """Run the exchange in a cancel scope, as a native cancellation would break httpcore's
        pool."""
        try:
            with self._scope:
                await self._exchange()
        except (
            anyio.get_cancelled_exc_class()
        ):  # the event loop is closing, or the transport raised it
            self._feed(self._response.on_failure, self._cancelled())
        except BaseException as error:  # noqa: BLE001 - the application's, re-raised to the caller
            self._feed(self._response.on_failure, self._failure_of(error))
        finally:
            self._ended.set()
            self._reactor.leave()

    @abstractmethod
    async def _exchange(self) -> None:
        """Send the request and feed the response."""

    @abstractmethod
    def _cancelled(self) -> BaseException:
        """Return the failure for a cancellation that the caller did not request."""

    def _failure_of(self, error: BaseException) -> BaseException:
        """Return the caller's exception for a failure of the exchange."""
        return error

    async def _until_resumed(self) -> None:
        while self.paused and not self.closed:
            await self._resumed.wait()

    def _feed(self, take: Callable[..., None], *args: Any) -> None:
        if not self.closed:
            self._reactor.now = self._reactor.clock()
            take(*args)
