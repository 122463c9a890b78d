"""A client as a site's model, which makes the site a gateway to another API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

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
    SiteError,
)
from gprochat_anyio._wire.model_api import Finish, ModelError, Turn, spoken

UNNAMED: Final = "gprochat"
"""The name of a model that has none."""

_ASKED_TOO_MUCH = (400, 413, 422)  # for example, a prompt that is too long: a retry is useless


class ClientModel:
    """A model that passes histories on to a client's API.

    :param client: The client. The caller closes it.
    """

    takes_system = True
    """Always True: a history may begin with a system text."""

    def __init__(self, client: Client | Fleet) -> None:
        self._client = client
        self.name = (isinstance(client, Client) and client.model) or UNNAMED
        """The model's name for clients of the OpenAI endpoint."""

    def __repr__(self) -> str:
        return f"<ClientModel by {self._client!r}>"

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        """Return the reply to a history.

        :raises ModelError: If the reply is not complete.
        """
        prompt = [Message(turn.role, turn.text) for turn in spoken(turns)]
        error: GPROChatError
        try:
            async with self._client.stream(prompt) as chunks:
                async for chunk in chunks:
                    yield chunk
        except EmptyReplyError:
            return
        except GPROChatError as failed:
            error = failed
        else:
            reason, usage = chunks.finish_reason, chunks.usage
            if reason is not None or usage is not None:
                yield Finish("length" if reason == "length" else "stop", usage)
            return
        raise self._refusal(error)

    def _refusal(self, error: GPROChatError) -> ModelError:
        said = f"the model behind this site: {error}"
        is_site = isinstance(self._client, Client) and self._client.model is None
        match error:
            case InvalidPromptError():
                refusal = ModelError(str(error), status=400)
            case AuthenticationError() if is_site:
                refusal = ModelError(
                    "the site behind this one refused its secret key or password; its owner must "
                    "check GPROCHAT_UPSTREAM_SECRET_KEY and GPROCHAT_UPSTREAM_PASSWORD"
                )
            case RateLimitError():
                refusal = ModelError(said, status=429, retry_after=error.retry_after)
            case SiteError() if error.status in _ASKED_TOO_MUCH or error.code == "content_filter":
                code = error.code if error.code == "content_filter" else None
                refusal = ModelError(said, status=400, code=code)
            case SiteConnectionError():
                refusal = ModelError(said, status=503)
            case RequestTimeoutError():
                refusal = ModelError(said, status=504)
            case _:
                refusal = ModelError(said)
        return refusal
