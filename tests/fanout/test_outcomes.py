"""Chunk, Finished, Failed and Outcome: values whose repr shows neither prompt nor text."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from gprochat_anyio import Chunk, Failed, Finished, Outcome, Reply, ReplyInterruptedError, Timing

REPLY = Reply("canary", Timing(0.0, 0.1, 0.2, 1, 6, 1))
ERROR = ReplyInterruptedError("the reply broke off", partial_text="canary")

VALUES: list[Any] = [
    Chunk(3, "canary"),
    Finished(3, REPLY),
    Failed(3, ERROR),
    Outcome(index=3, prompt="canary", reply=REPLY),
    Outcome(index=3, prompt=[{"role": "user", "content": "canary"}], error=ERROR),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values(value: Any) -> None:
    assert value.index == 3
    assert "canary" not in repr(value)
    assert "3" in repr(value)
    assert pickle.loads(pickle.dumps(value)).index == 3  # noqa: S301
    assert not hasattr(value, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.index = 4


def test_unwrap() -> None:
    assert VALUES[3].unwrap() is REPLY
    with pytest.raises(ReplyInterruptedError) as caught:
        VALUES[4].unwrap()
    assert caught.value is ERROR
