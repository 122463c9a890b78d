"""Errors as values."""

from __future__ import annotations

import pickle

import pytest

import gprochat_anyio
from gprochat_anyio import (
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
)

PUBLIC = [getattr(gprochat_anyio, name) for name in gprochat_anyio.__all__]
ALL = [v for v in PUBLIC if isinstance(v, type) and issubclass(v, GPROChatError)]


def test_there_are_ten() -> None:
    assert len(ALL) == 10


@pytest.mark.parametrize("kind", ALL)
def test_a_message_suffices(kind: type[GPROChatError]) -> None:
    assert str(kind("what to do")) == "what to do"


@pytest.mark.parametrize(
    "error",
    [
        RequestTimeoutError("m", phase="idle", limit=1.0, elapsed=2.0, partial_text="p"),
        RateLimitError("m", status=429, code="c", site_message="s", retry_after=3.0),
        ReplyInterruptedError("m", partial_text="p"),
    ],
)
def test_pickles(error: GPROChatError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own data
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_timeout_is_a_builtin_timeout_error() -> None:
    with pytest.raises(TimeoutError):
        raise RequestTimeoutError("late")
