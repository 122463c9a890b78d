"""The sender to a model in this process, which runs in the caller's event loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Any

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from gprochat_anyio._wire.model_api import Model, ModelError, Turn
from gprochat_anyio._wire.model_wire import error_of_model
from gprochat_anyio.transport._failures import ConnectionLost

from .background_exchange import BackgroundExchange
from .model_texts import Texts
from .response import IncomingResponse

_log = logging.getLogger("gprochat_anyio")


_MOST = 100
"""Maximum number of texts from a model that has a cancelled scope open and awaits nothing."""


class ModelSender:
    """Sender of requests to a model in this process."""

    pool = None
    """Always `None`: there are no connections."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def send(
        self,
        path: str,  # noqa: ARG002 - part of the interface
        encode: Callable[[], Any],
        response: IncomingResponse,
        *,
        fresh: bool,  # noqa: ARG002
    ) -> None:
        """Start a background task that iterates over the model and feeds the response.

        :param encode: Return the history.
        """
        ModelExchange(self._model, encode(), response).start()

    async def aclose(self) -> None:
        """Do nothing, because the application owns the model."""


class ModelExchange(BackgroundExchange):
    """One reply of a model, whose iterator is closed in the end."""

    def __init__(self, model: Model, turns: tuple[Turn, ...], response: IncomingResponse) -> None:
        super().__init__(response)
        self._texts = Texts(model, turns)
        self._cancellations = 0  # consecutive, by a scope of the model

    async def _exchange(self) -> None:
        texts, failure = self._texts, None
        try:
            while (text := await texts.next()) is not None:
                self._feed(self._response.on_body, text)  # its decoder accepts str
                await self._give_turn()
        except ModelError as error:
            failure = error_of_model(error)
        finally:
            await texts.aclose()
        if failure is None:
            self._feed(self._response.on_end)
        else:
            self._feed(self._response.on_failure, failure)

    async def _give_turn(self) -> None:
        """Let the consumer take a text, and wait while it is behind."""
        try:
            # The model may never wait itself. Two turns are needed: in the first one, the consumer
            # takes the text; in the second one, it waits again, and asyncio can deliver a
            # cancellation.
            await checkpoint()
            await checkpoint()
            await self._until_resumed()
        except anyio.get_cancelled_exc_class():
            ends = (
                self.closed or anyio.current_effective_deadline() > -inf
            )  # the event loop is closing
            if ends or self._cancellations == _MOST:
                raise
            # The model may hold a cancelled scope open while it is suspended. Only the model's own
            # awaits may raise for it, because the model has to leave its scopes itself.
            self._cancellations += 1
            await cancel_shielded_checkpoint()
        else:
            self._cancellations = 0

    def _failure_of(self, error: BaseException) -> BaseException:
        if not isinstance(error, RuntimeError | GeneratorExit):
            return error
        _log.error("the model failed: %s, or it left a cancel scope open", type(error).__name__)
        return error_of_model(ModelError("The model failed."))

    def _cancelled(self) -> BaseException:
        return ConnectionLost("the model was cancelled", answered=True, reused=False, reset=True)
