"""Mapper for Ray Data that asks the prompts of a dataset, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from gprochat_anyio import Client, Fleet, Outcome, SyncClient, Timeouts


class PromptMapper:
    """Callable class for `Dataset.map_batches` that asks the prompts of a block concurrently.

    ::

        dataset.map_batches(
            PromptMapper,
            fn_constructor_kwargs={"make_client": make_client, "max_at_once": 16},
            concurrency=8,
            batch_size=512,
        )

    Each row gets two columns, for the reply's text and for the error's type and message. One of
    them is null. A failure affects its row only, not the block.

    :param make_client: Function without arguments that returns a client. It is called once in each
        worker, which keeps the client and its connections for all blocks.
    :param prompt: The column of the prompts.
    :param reply: The column for the replies' texts.
    :param error: The column for the errors.
    :param max_at_once: Maximum number of prompts in flight in this worker.
    :param max_per_second: Maximum number of starts per second in this worker. `None` for no limit.
    :param timeouts: Overrides the client's timeouts, field by field.
    :param backend: The event loop.
    """

    def __init__(
        self,
        make_client: Callable[[], Client | Fleet],
        *,
        prompt: str = "prompt",
        reply: str = "reply",
        error: str = "error",
        max_at_once: int = 16,
        max_per_second: float | None = None,
        timeouts: Timeouts | None = None,
        backend: Literal["asyncio", "trio"] = "asyncio",
    ) -> None:
        self._prompt = prompt
        self._reply = reply
        self._error = error
        self._limits: Any = {"max_at_once": max_at_once, "max_per_second": max_per_second}
        self._timeouts = timeouts
        self._client = SyncClient.of(make_client(), backend=backend)

    def __call__(self, block: Mapping[str, Any]) -> dict[str, Any]:
        """Return the block with the columns of the replies and errors.

        :param block: A block in the batch format "numpy".
        """
        prompts = [_plain(prompt) for prompt in block[self._prompt]]
        outcomes = self._client.gather(prompts, timeouts=self._timeouts, **self._limits)
        return {
            **block,
            self._reply: [one.reply.text if one.reply else None for one in outcomes],
            self._error: [_error_of(one) for one in outcomes],
        }

    def __del__(self) -> None:
        if hasattr(self, "_client"):
            self._client.close()


def _plain(prompt: Any) -> Any:
    """Return a prompt without numpy's types, to which datasets convert lists of messages."""
    return prompt.tolist() if hasattr(prompt, "tolist") else prompt


def _error_of(outcome: Outcome) -> str | None:
    error = outcome.error
    return None if error is None else f"{type(error).__name__}: {error}"
