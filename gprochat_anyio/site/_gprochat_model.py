"""Another GPROChat site as the model: what makes a site a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gprochat_anyio import (
    AuthenticationError,
    Client,
    EmptyReplyError,
    Fleet,
    GPROChatError,
    InvalidPromptError,
    Message,
    RateLimitError,
    RequestTimeoutError,
    SiteConnectionError,
)
from gprochat_anyio._wire.model_api import ModelError, Turn, spoken


class GPROChatModel:
    """Answers by what another site, or one of a fleet, answers.

    :param client: Of that site, or a `Fleet` of several. It stays its owner's to close.
    """

    name = "gprochat"
    """What it is called: the site behind does not say which model it has."""

    def __init__(self, client: Client | Fleet) -> None:
        self._client = client

    def __repr__(self) -> str:
        return f"<GPROChatModel by {self._client!r}>"

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        """The answer to a history.

        :raises ModelError: if the site behind gives none
        """
        prompt = [Message(turn.role, turn.text) for turn in spoken(turns)]
        try:
            async with self._client.stream(prompt) as chunks:
                async for chunk in chunks:
                    yield chunk
        except EmptyReplyError:
            return
        except GPROChatError as failed:
            error = failed
        else:
            return
        raise _refusal(error)


def _refusal(error: GPROChatError) -> ModelError:
    match error:
        case InvalidPromptError():
            return ModelError(str(error), status=400)
        case AuthenticationError():
            return ModelError(
                "the site behind this one refused its secret key or password; its owner has to "
                "check GPROCHAT_UPSTREAM_SECRET_KEY and GPROCHAT_UPSTREAM_PASSWORD"
            )
        case RateLimitError():
            return ModelError(
                f"the site behind this one: {error}", status=429, retry_after=error.retry_after
            )
        case SiteConnectionError():
            return ModelError(f"the site behind this one: {error}", status=503)
        case RequestTimeoutError():
            return ModelError(f"the site behind this one: {error}", status=504)
        case _:
            return ModelError(f"the site behind this one: {error}")
