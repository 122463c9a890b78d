"""`Client.of`: models that fail, refuse, or yield too much text."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.faults import WAYS, assert_ours, receive_by
from support.models import Saying

from gprochat_anyio import Client, RateLimitError, ReplyInterruptedError, Retry, SiteError
from gprochat_anyio.site import ModelError, Turn

PROMPT = "canary-of-the-prompt"
every_way = pytest.mark.parametrize("way", WAYS[:3])


def returns_a_number(turns: tuple[Turn, ...]) -> Any:
    return 5


async def yields_bytes(turns: tuple[Turn, ...]) -> AsyncIterator[Any]:
    yield "one"
    yield b"two"


async def yields_none(turns: tuple[Turn, ...]) -> AsyncIterator[Any]:
    yield None


async def yields_half_a_character(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    yield "one"
    yield "\ud83d"


async def quotes(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    raise KeyError(turns[-1].text)
    yield ""


async def quotes_behind_text(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    yield "one"
    raise ExceptionGroup(turns[-1].text, [ValueError(turns[-1].text)])


class NoSuchPlace:
    def __call__(self, turns: tuple[Turn, ...]) -> Any:
        raise OSError(turns[-1].text)


@every_way
@pytest.mark.parametrize(
    ("model", "text", "logged"),
    [
        (returns_a_number, "", "it returned a int, not an async iterable of text"),
        (yields_bytes, "one", "it yielded a bytes, not a str"),
        (yields_none, "", "it yielded a NoneType, not a str"),
        (yields_half_a_character, "one", "a lone surrogate"),
        (quotes, "", f"KeyError at {__file__}:"),
        (quotes_behind_text, "one", f"ExceptionGroup at {__file__}:"),
        (NoSuchPlace(), "", f"OSError at {__file__}:"),
    ],
)
async def test_a_model_that_fails_is_not_quoted(
    way: str, model: Any, text: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pieces: list[str] = []
    async with Client.of(model) as client:
        with pytest.raises(SiteError) as caught:
            await receive_by(way, client, PROMPT, into=pieces)
    assert way == "ask" or "".join(pieces) == text
    error = caught.value
    assert (type(error), error.status, str(error)) == (SiteError, 500, "The model failed.")
    assert error.__cause__ is error.__context__ is None
    assert PROMPT not in caplog.text + repr(vars(error))
    assert logged in caplog.text


@every_way
@pytest.mark.parametrize("texts", [(), ("one",)])
async def test_a_model_that_refuses(way: str, texts: tuple[str, ...]) -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        for text in texts:
            yield text
        raise ModelError("not today", status=451, code="lawyers")

    pieces: list[str] = []
    async with Client.of(model, retry=Retry(attempts=3)) as client:
        with pytest.raises(SiteError, match="not today") as caught:
            await receive_by(way, client, into=pieces)
    error = caught.value
    assert (type(error), error.status, error.code) == (SiteError, 451, "lawyers")
    assert error.site_message == "not today"
    assert way == "ask" or tuple(pieces) == texts


@every_way
async def test_a_rate_limit_is_retried(way: str) -> None:
    asked = 0

    async def busy_at_first(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        nonlocal asked
        asked += 1
        if asked % 3:
            raise ModelError("busy", status=429, retry_after=0.001)
        yield "fine"

    async with Client.of(busy_at_first, retry=Retry(attempts=3, backoff=0)) as client:
        assert await receive_by(way, client) == "fine"
    assert asked == 3
    async with Client.of(busy_at_first, retry=Retry(attempts=2, backoff=0)) as client:
        with pytest.raises(RateLimitError, match="busy") as caught:
            await receive_by(way, client)
    assert (caught.value.status, caught.value.retry_after) == (429, 0.001)
    assert asked == 5


@every_way
async def test_a_reply_that_is_too_large(way: str) -> None:
    async with Client.of(Saying("aé" * 100), max_reply_size=300) as client:
        assert await receive_by(way, client) == "aé" * 100
    for texts, size in ((("aé" * 100,), 299), (("é", "é", "é"), 5)):
        pieces: list[str] = []
        model = Saying(*texts, endless=True)
        async with Client.of(model, max_reply_size=size, retry=Retry(attempts=1)) as client:
            with pytest.raises(ReplyInterruptedError, match=f"max_reply_size, {size} b") as caught:
                await receive_by(way, client, into=pieces)
        expected = "".join(texts).encode()[:size].decode(errors="ignore")
        assert_ours(caught.value, ReplyInterruptedError, expected)
        assert way == "ask" or "".join(pieces) == expected
        assert model.running == 0
    async with Client.of(Saying("a" * 100), max_reply_size=None) as client:
        assert await receive_by(way, client) == "a" * 100


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_an_invalid_retry_after(seconds: float) -> None:
    with pytest.raises(ValueError, match="retry_after must be"):
        ModelError("slow down", status=429, retry_after=seconds)
