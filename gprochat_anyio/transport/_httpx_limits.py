"""httpx's timeouts and exceptions, for exchanges over the library's own connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from math import inf
from types import ModuleType
from typing import Any, Literal, TypeAlias, TypeVar

import anyio

from ._failures import ConnectFailure, ConnectionLost, ProxyFailure, TransportFailure
from ._stages import Stage

_T = TypeVar("_T")

_StageOrPool: TypeAlias = Stage | Literal["pool"]


class HttpxLimits:
    """httpx's four timeouts of one exchange (pool, connect, write, read), each per operation."""

    def __init__(self, library: ModuleType, request: Any) -> None:
        self._library = library
        self._request = request
        self._limits: Mapping[str, float | None] = request.extensions.get("timeout", {})
        self._scope = anyio.CancelScope()
        self._name = "pool"

    def start(self, stage: _StageOrPool) -> None:
        """Start the timeout of a stage, and stop that of the previous stage."""
        self._name = "write" if stage == "send" else stage
        limit = self._limits.get(self._name)
        self._scope.deadline = inf if limit is None else anyio.current_time() + limit

    def renew_read(self) -> None:
        """Restart the read timeout if it is running, after data has been read."""
        if self._name == "read":
            self.start("read")

    async def run(self, stage: _StageOrPool, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Run an operation under the timeouts, and map its failures to httpx's exceptions.

        :raises httpx.TransportError: If the operation fails or a timeout expires.
        """
        failure: TransportFailure | None = None
        with anyio.CancelScope() as self._scope:
            self.start(stage)
            try:
                return await operation()
            except TransportFailure as caught:
                failure = caught
        name, message = self._timed_out() if failure is None else _named(failure)
        raise getattr(self._library, name)(message, request=self._request)

    def _timed_out(self) -> tuple[str, str]:
        limit = self._limits[self._name]
        return f"{self._name.capitalize()}Timeout", f"{self._name} took more than {limit:g} s"


def _named(failure: TransportFailure) -> tuple[str, str]:
    """Return the name of httpx's exception for a failure, and its message."""
    if isinstance(failure, ProxyFailure):
        name = "ProxyError"
    elif isinstance(failure, ConnectFailure):
        name = "ConnectError"
    elif isinstance(failure, ConnectionLost) and failure.reset:
        name = "ReadError"
    else:
        name = "RemoteProtocolError"
    return name, str(failure)
