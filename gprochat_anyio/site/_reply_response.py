"""A model's texts on their way to the client."""

from __future__ import annotations

import logging
import math
from typing import Final

from anyio.lowlevel import checkpoint
from starlette.types import Receive, Scope, Send

from gprochat_anyio._request.model_texts import Texts
from gprochat_anyio._wire.admission import model_failure
from gprochat_anyio._wire.gprochat import FAILURE_MARKER, REPLY_CONTENT_TYPE
from gprochat_anyio._wire.model_api import Model, ModelError, Turn

from ._asgi import end, head, part
from ._intake import to_response

_log = logging.getLogger("gprochat_anyio.site")

_HEADERS: Final = ((b"content-type", REPLY_CONTENT_TYPE.encode()),)


class StreamedReply:
    """An ASGI response that streams what the model answers, a chunk a text.

    The head waits for the first text, so that a refusal before it can still be an error answer.
    Cancellation, which is how a client that leaves shows here, stops the model at once and closes
    it before it propagates.
    """

    def __init__(self, model: Model, turns: tuple[Turn, ...]) -> None:
        self._texts = Texts(model, turns)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened = False
        try:
            while (text := await self._texts.next()) is not None:
                if not opened:
                    await send(head(_HEADERS))
                    opened = True
                if text:
                    await send(part(text.encode()))
                # Neither a model nor a server need ever wait, but a cancellation has to get in.
                await checkpoint()
        except ModelError as refusal:
            if not opened:
                response = to_response(model_failure(str(refusal)))
                if refusal.retry_after is not None:
                    response.headers["retry-after"] = str(math.ceil(refusal.retry_after))
                await response(scope, receive, send)
                return
            _log.warning("a reply was interrupted: the model failed after its first text")
            await send(part(FAILURE_MARKER))
        else:
            if not opened:
                await send(head(_HEADERS))
        finally:
            await self._texts.aclose()
        await send(end())
