"""ASGI's lifespan protocol, which starts an application up and shuts it down."""

from __future__ import annotations

import logging
from typing import Any, Final

from anyio import CancelScope, Event, move_on_after, sleep_forever
from starlette.types import ASGIApp, Message

SHUTDOWN_SECONDS: Final = 1.0
"""Maximum time for an application to shut down, in seconds."""

_log = logging.getLogger("gprochat_anyio.site")


class Lifespan:
    """An application's lifespan. A task runs it; the server calls `start` and `stop`.

    An application that does not support the lifespan protocol is served without it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        """The state that the application sets during its startup. Each request receives a copy."""
        self.failure: RuntimeError | None = None
        """The error of a startup or shutdown that the application reported as failed."""
        self._app = app
        self._running = CancelScope()
        self._events = iter(("lifespan.startup", "lifespan.shutdown"))
        self._started = Event()
        self._stopping = Event()
        self._ended = Event()

    async def run(self) -> None:
        """Run the lifespan. Cancellation ends only the startup; after that, `stop` ends it."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        try:
            with self._running:
                await self._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - an application may raise anything
            if self.failure is not None:
                self.failure.__cause__ = error
            elif self._started.is_set():
                _log.error("the app's lifespan failed: %s", type(error).__qualname__)
        finally:
            self._started.set()
            self._ended.set()

    async def start(self) -> bool:
        """Wait until the application has started up. Return False if that failed."""
        await self._started.wait()
        return self.failure is None

    async def stop(self) -> None:
        """Shut the application down, for at most `SHUTDOWN_SECONDS`, even if cancelled."""
        self._stopping.set()
        with move_on_after(SHUTDOWN_SECONDS, shield=True):
            await self._ended.wait()
        self._running.cancel()

    async def _receive(self) -> Message:
        event = next(self._events, None)
        if event is None:
            await sleep_forever()
        if event == "lifespan.shutdown":
            await self._stopping.wait()
        return {"type": event}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._running.shield = True
        elif kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            *_, reason = message.get("message", "").strip().splitlines() or [""]
            step = kind.split(".")[1]
            self.failure = RuntimeError(f"the app's {step} failed: {reason or 'no message'}")
        self._started.set()
