"""The causes of failures, and the settings of `Retry` that a fleet leaves to its clients."""

from __future__ import annotations

import pytest

from gprochat_anyio import (
    AuthenticationError,
    EmptyReplyError,
    GPROChatError,
    InvalidPromptError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    Retry,
    SiteConnectionError,
    SiteError,
    UnexpectedResponseError,
)
from gprochat_anyio._fleet.faults import Fault, fault_of
from gprochat_anyio._fleet.first_attempt import FirstAttempt


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (SiteConnectionError("no"), Fault.ENDPOINT),
        (RequestTimeoutError("late", phase="connect"), Fault.ENDPOINT),
        (RequestTimeoutError("late", phase="first_chunk"), Fault.ENDPOINT),
        (RequestTimeoutError("late", phase="idle"), Fault.TIME),
        (RequestTimeoutError("late", phase="total"), Fault.TIME),
        (SiteError("no", status=500), Fault.ENDPOINT),
        (SiteError("no", status=503), Fault.ENDPOINT),
        (SiteError("no", status=403), Fault.ENDPOINT),
        (SiteError("no", status=404), Fault.ENDPOINT),
        (SiteError("no", status=400), Fault.PROMPT),
        (SiteError("no", status=413), Fault.PROMPT),
        (SiteError("no", status=422), Fault.PROMPT),
        (SiteError("no", status=500, code="content_filter"), Fault.PROMPT),
        (UnexpectedResponseError("html", status=400), Fault.ENDPOINT),
        (AuthenticationError("key", status=401), Fault.KEY),
        (RateLimitError("slow", status=429), Fault.RATE_LIMIT),
        (ReplyInterruptedError("cut"), Fault.ENDPOINT),
        (EmptyReplyError("empty"), Fault.PROMPT),
        (InvalidPromptError("blank"), Fault.PROMPT),
        (GPROChatError("else"), Fault.ENDPOINT),
    ],
)
def test_fault(error: GPROChatError, fault: Fault) -> None:
    assert fault_of(error) is fault


def test_one_attempt_and_a_stale_connection_replaced() -> None:
    retry = FirstAttempt.of(Retry(attempts=1, backoff=3.0, max_wait=7.0))
    assert (retry.attempts, retry.backoff, retry.max_wait) == (2, 3.0, 7.0)
    stale = SiteConnectionError("closed")
    stale.stale = True
    assert retry.covers(stale)
    for error in (SiteConnectionError("no"), SiteError("no", status=503), RateLimitError("slow")):
        assert not retry.covers(error)


@pytest.mark.parametrize(
    ("retry", "retry_after", "waits"),
    [
        (Retry(), None, True),
        (Retry(), 2.0, False),
        (Retry(attempts=1), None, False),
        (Retry(statuses=frozenset()), None, False),
    ],
)
def test_a_refused_request_waits_for_its_turn(
    retry: Retry, retry_after: float | None, waits: bool
) -> None:
    limited = FirstAttempt.of(retry, waits_for_turn=True)
    assert limited.covers(RateLimitError("slow", status=429, retry_after=retry_after)) is waits
