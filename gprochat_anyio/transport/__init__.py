"""An HTTP/1.1 transport for streaming, on asyncio and on Trio."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._httpx import AnyIOTransport as AnyIOTransport

__all__ = ["AnyIOTransport"]


def __getattr__(name: str) -> Any:
    if name == "AnyIOTransport":  # httpx, which it is made for, costs 50 ms to import
        from ._httpx import AnyIOTransport  # noqa: PLC0415

        return AnyIOTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
