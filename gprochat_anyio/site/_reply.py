"""A model's texts on their way to the client."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator
from typing import Final

from anyio import move_on_after
from anyio.lowlevel import checkpoint
from starlette.types import Message, Receive, Scope, Send

from gprochat_anyio._protocol import FAILURE_MARKER

from ._intake import to_response
from ._models import Model, ModelError, Turn
from ._wire import REPLY_CONTENT_TYPE, error_answer

CLOSING_SECONDS: Final = 1.0
"""How long a model may take to clean up."""

_log = logging.getLogger("gprochat_anyio.site")

_HEAD: Final[Message] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", REPLY_CONTENT_TYPE.encode())],
}


class Reply:
    """An ASGI response that streams what the model answers, a chunk a text.

    The head waits for the first text, so that a refusal before it can still be an error answer.
    Cancellation, which is how a client that leaves shows here, stops the model at once and closes
    it before it propagates.
    """

    def __init__(self, model: Model, turns: tuple[Turn, ...]) -> None:
        self._model = model
        self._turns = turns
        self._texts: AsyncIterator[str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened = False
        try:
            while (text := await self._next_text()) is not None:
                if not opened:
                    await send(_HEAD)
                    opened = True
                if text:
                    await send(_part(text))
                # Neither a model nor a server need ever wait, but a cancellation has to get in.
                await checkpoint()
        except ModelError as refusal:
            if not opened:
                answer = error_answer(500, str(refusal), code="Error")
                await to_response(answer)(scope, receive, send)
                return
            _log.warning("a reply was interrupted: the model failed after its first text")
            await send(_part(FAILURE_MARKER))
        else:
            if not opened:
                await send(_HEAD)
        finally:
            await self._close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next_text(self) -> bytes | None:
        """The model's next text as bytes, None at its end; a `ModelError` for every failure."""
        try:
            if self._texts is None:
                self._texts = aiter(self._model(self._turns))
            return (await anext(self._texts)).encode()
        except StopAsyncIteration:
            return None
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - a model is foreign code
            _log.error("the model failed: %s", _place(error))
            raise ModelError("The model failed.") from None

    async def _close(self) -> None:
        aclose = getattr(self._texts, "aclose", None)
        if aclose is None:
            return
        with move_on_after(CLOSING_SECONDS, shield=True) as clock:
            try:
                await aclose()
            except Exception as error:  # noqa: BLE001 - a model is foreign code
                _log.error("the model failed to close: %s", _place(error))
        if clock.cancelled_caught:
            _log.error("the model took more than %g s to close and was cancelled", CLOSING_SECONDS)


def _part(text: bytes) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": True}


def _place(error: Exception) -> str:
    # Without its message, which may quote the prompt.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__qualname__} at {frame.filename}:{frame.lineno}"
