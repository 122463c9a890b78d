"""The messages of a streaming ASGI response, and the task in which a model runs.

Each message is a new object, because middleware may modify it, for example to set a cookie.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from anyio import create_task_group
from starlette.types import Message

CANCELS: Final = "gprochat_anyio.cancels"
"""The extension of a scope whose server cancels the application if the client disconnects."""


def head(fields: Iterable[tuple[bytes, bytes]]) -> Message:
    """Return the message that starts a response with status 200."""
    return {"type": "http.response.start", "status": 200, "headers": list(fields)}


def part(data: bytes) -> Message:
    """Return a message with a part of the body."""
    return {"type": "http.response.body", "body": data, "more_body": True}


def end() -> Message:
    """Return the message that ends the body."""
    return {"type": "http.response.body", "body": b"", "more_body": False}


async def in_own_task(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run work on a model in a task of its own, and wait for it.

    A model that yields within a cancel scope of its own can break the task that iterates over it.
    On asyncio this ends the task's group, which must not be the server's.

    :raises Exception: If the work fails, its exception.
    """
    try:
        async with create_task_group() as tg:
            tg.start_soon(work)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
