"""What a model answers, whatever it does: bytes, its end, or a `ModelError`."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator
from typing import Final

from anyio import move_on_after

from gprochat_anyio._wire.model_api import Model, ModelError, Turn

CLOSING_SECONDS: Final = 1.0
"""How long a model may take to clean up."""

_log = logging.getLogger("gprochat_anyio.site")


class Texts:
    """The texts of one answer. Whoever calls `next` calls `aclose` in the end, in the same task."""

    def __init__(self, model: Model, turns: tuple[Turn, ...]) -> None:
        self._model = model
        self._turns = turns
        self._texts: AsyncIterator[str] | None = None

    async def next(self) -> str | None:
        """The next text, None at the end.

        :raises ModelError: for every failure. Its cause is logged, without a message that may
            quote the prompt.
        """
        try:
            if self._texts is None:
                self._texts = aiter(self._model(self._turns))
            text = await anext(self._texts)
            text.encode()  # fails for what is no text
        except StopAsyncIteration:
            return None
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - a model is foreign code
            _log.error("the model failed: %s", _place(error))
            raise ModelError("The model failed.") from None
        return text

    async def aclose(self) -> None:
        """Close the model's iterator, in a bounded time, also where cancelled."""
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


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__qualname__} at {frame.filename}:{frame.lineno}"
