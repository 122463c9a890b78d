"""The texts of a model in this process. Everything else that it does becomes a `ModelError`."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from anyio import move_on_after

from gprochat_anyio._wire.model_api import Model, ModelError, Turn

CLOSING_SECONDS: Final = 1.0
"""Maximum time for a model to clean up, in seconds."""

_log = logging.getLogger("gprochat_anyio.site")


class _MisuseError(Exception):
    """The model violated its interface. The message does not quote the model's text."""


class Texts:
    """The texts of one reply. The task that calls `next` must call `aclose`."""

    def __init__(self, model: Model, turns: tuple[Turn, ...]) -> None:
        self._model = model
        self._turns = turns
        self._texts: AsyncIterator[str] | None = None

    async def next(self) -> str | None:
        """Return the next text, or `None` at the end.

        :raises ModelError: If the model fails. The cause is logged without its message, which may
            quote the prompt.
        """
        try:
            if self._texts is None:
                self._texts = _iterator_over(self._model(self._turns))
            text = await anext(self._texts)
            _check_text(text)
        except StopAsyncIteration:
            return None
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - a model is foreign code
            _log.error("the model failed: %s", _place(error))
            raise ModelError("The model failed.") from None
        return text

    async def aclose(self) -> None:
        """Close the model's iterator, for at most `CLOSING_SECONDS`, even if the caller is
        cancelled."""
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


def _iterator_over(texts: object) -> AsyncIterator[str]:
    if not isinstance(texts, AsyncIterable):
        raise _MisuseError(f"it returned a {type(texts).__name__}, not an async iterable of text")
    return aiter(texts)


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise _MisuseError(f"it yielded a {type(text).__name__}, not a str")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _MisuseError("it yielded a lone surrogate, which is not valid text") from None


def _place(error: Exception) -> str:
    if isinstance(error, _MisuseError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__qualname__} at {frame.filename}:{frame.lineno}"
