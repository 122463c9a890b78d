"""The client's way to a model in this process: it runs in the caller's event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio.lowlevel import checkpoint

from gprochat_anyio._wire.model_api import Model, ModelError, Turn
from gprochat_anyio._wire.model_wire import error_of_model
from gprochat_anyio.transport._failures import ConnectionLost

from .background_exchange import BackgroundExchange
from .model_texts import Texts
from .response import IncomingResponse


class ModelSender:
    """Has a model respond to requests."""

    pool = None
    """None: there are no connections."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def send(
        self,
        path: str,  # noqa: ARG002 - for all senders
        encode: Callable[[], Any],
        response: IncomingResponse,
        *,
        fresh: bool,  # noqa: ARG002
    ) -> None:
        """Start a background task that iterates over the model, and feeds the response.

        :param encode: makes the history
        """
        ModelExchange(self._model, encode(), response).start()

    async def aclose(self) -> None:
        """Do nothing: the model is its owner's."""


class ModelExchange(BackgroundExchange):
    """One reply of a model. It is the model's iterator that has to be closed in the end."""

    def __init__(self, model: Model, turns: tuple[Turn, ...], response: IncomingResponse) -> None:
        super().__init__(response)
        self._texts = Texts(model, turns)

    async def _exchange(self) -> None:
        texts, failure = self._texts, None
        try:
            while (text := await texts.next()) is not None:
                self._feed(self._response.on_body, text)  # its decoder takes texts
                # A model need never wait. Two turns, because the consumer takes the text in the
                # next one: in the other it waits, and asyncio can deliver a cancellation.
                await checkpoint()
                await checkpoint()
                await self._until_resumed()
        except ModelError as error:
            failure = error_of_model(error)
        finally:
            await texts.aclose()
        if failure is None:
            self._feed(self._response.on_end)
        else:
            self._feed(self._response.on_failure, failure)

    def _cancelled(self) -> BaseException:
        return ConnectionLost("the model was cancelled", answered=True, reused=False, reset=True)
