"""Validation of a fan-out's arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from gprochat_anyio._request.chat_client import ChatClient, opener_of
from gprochat_anyio._request.limiter import Limiter, check_leaves_one, check_limits
from gprochat_anyio._request.opener import Opener, PreparedRequest
from gprochat_anyio._settings import Timeouts, check

from .prompts import Prompts, PromptSource

if TYPE_CHECKING:
    from gprochat_anyio._client import Client
    from gprochat_anyio._fleet.fleet import Fleet

_WORKERS = 16

OnError = Literal["collect", "raise"]
"""The handling of a prompt's error: "collect" includes it in the results, "raise" ends the
fan-out."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The validated arguments of a fan-out."""

    opener: Opener
    source: PromptSource
    request: PreparedRequest
    """The template of all requests, without messages."""
    workers: int
    """Maximum number of concurrent prompts."""
    on_error: OnError

    @classmethod
    def of(
        cls,
        client: Client | Fleet,
        prompts: Prompts,
        *,
        max_at_once: int | None,
        max_per_second: float | None,
        limiter: Limiter | None,
        timeouts: Timeouts | None,
        on_error: OnError,
        adaptive: bool,
        may_be_held: bool,
    ) -> Plan:
        """Validate the arguments of `fan_out`.

        :raises ValueError: If an argument is invalid. The message names it.
        """
        if not isinstance(client, ChatClient):
            raise ValueError(f"client must be a Client or a Fleet, not {type(client).__name__}")
        check("limiter", limiter, Limiter, type(None))
        check("timeouts", timeouts, Timeouts, type(None))
        check_limits(max_at_once, max_per_second, adaptive)
        if on_error not in get_args(OnError):
            raise ValueError("on_error must be 'collect' or 'raise'")
        if limiter is not None and max_per_second is not None:
            raise ValueError(
                "max_per_second must be set on the limiter: Limiter(max_per_second=...)"
            )
        workers = max_at_once or (limiter and limiter.max_at_once) or _WORKERS
        if limiter is None:  # one start of a limiter is reserved for the consumer
            at_once = workers + may_be_held
            limiter = Limiter(max_at_once=at_once, max_per_second=max_per_second, adaptive=adaptive)
        elif may_be_held:
            check_leaves_one("max_at_once", limiter.max_at_once, "the Limiter")
        source = PromptSource(prompts)
        opener = opener_of(client)
        if may_be_held:
            opener.check_room()
        request = PreparedRequest((), timeouts, limiter=limiter, may_be_held=may_be_held)
        return cls(opener, source, request, workers, on_error)
