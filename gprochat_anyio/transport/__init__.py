"""HTTP/1.1 transport for streaming, on asyncio and Trio."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._httpx import AnyIOTransport as AnyIOTransport

__all__ = ["AnyIOTransport"]


def __getattr__(name: str) -> Any:
    if name == "AnyIOTransport":  # it imports httpx, which takes 50 ms
        from ._httpx import AnyIOTransport  # noqa: PLC0415

        return AnyIOTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
