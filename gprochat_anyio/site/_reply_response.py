"""The streamed response of a GPROChat site."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Final

from anyio.lowlevel import checkpoint
from starlette.types import Receive, Scope, Send

from gprochat_anyio._request.model_texts import Texts
from gprochat_anyio._wire.admission import model_failure
from gprochat_anyio._wire.gprochat import FAILURE_MARKER, REPLY_CONTENT_TYPE
from gprochat_anyio._wire.model_api import Model, ModelError, Turn

from ._asgi import end, head, in_own_task, part
from ._intake import to_response

_log = logging.getLogger("gprochat_anyio.site")

_HEADERS: Final = ((b"content-type", REPLY_CONTENT_TYPE.encode()),)


class StreamedReply:
    """An ASGI response that streams a model's texts, each as one chunk.

    The head is sent with the first text, so that an earlier refusal can be an error response.

    If the model fails after its first text, the failure marker follows, and the response ends
    without its last chunk. So it also fails for clients that do not know the marker. For a browser
    the response ends normally: otherwise the browser would discard the text that its page has not
    read yet, and pages know the marker.

    Cancellation stops and closes the model before it propagates. A request is cancelled when its
    client disconnects.

    :param is_browser: True if the client is a browser.
    """

    def __init__(self, model: Model, turns: tuple[Turn, ...], *, is_browser: bool) -> None:
        self._texts = Texts(model, turns)
        self._is_browser = is_browser

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await in_own_task(partial(self._respond, scope, receive, send))

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened = False
        try:
            while (text := await self._texts.next()) is not None:
                if not opened:
                    await send(head(_HEADERS))
                if text or not opened:  # a server may delay the head until the first part
                    await send(part(text.encode()))
                opened = True
                # A cancellation must be noticed even if neither the model nor the server waits.
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
            if not self._is_browser:
                return
        else:
            if not opened:
                await send(head(_HEADERS))
        finally:
            await self._texts.aclose()
        await send(end())
