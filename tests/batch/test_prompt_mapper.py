"""`PromptMapper` with blocks of prompts, without Ray."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytest
from support.batch_site import batch_site_in_thread

from gprochat_anyio import Client, Timeouts
from gprochat_anyio.batch._prompt_mapper import PromptMapper
from gprochat_anyio.testing import Refuse, Request, Say, Script


def respond(request: Request) -> Script:
    return Refuse(400, "no") if request.prompt == "b" else Say(f"re: {request.prompt}")


class FromNumpy:
    """Value with the `tolist` method of numpy's types."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def tolist(self) -> Any:
        return self._value


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_block_gets_two_columns(backend: Any) -> None:
    with batch_site_in_thread(respond) as site:
        mapper = PromptMapper(
            partial(Client, site.url, trust_env=False),
            prompt="question",
            reply="said",
            error="why",
            max_at_once=2,
            timeouts=Timeouts(total=30.0),
            backend=backend,
        )
        turns = FromNumpy([{"role": "user", "content": "c"}])
        block = mapper({"question": ["a", "b", turns, ""], "n": [1, 2, 3, 4]})
        again = mapper({"question": [], "n": []})
        del mapper
    assert block["n"] == [1, 2, 3, 4]
    assert block["said"] == ["re: a", None, "re: c", None]
    first, refused, third, empty = block["why"]
    assert (first, third) == (None, None)
    assert "400" in refused
    assert empty.startswith("InvalidPromptError: ")
    assert again == {"question": [], "n": [], "said": [], "why": []}


def test_without_a_client_there_is_nothing_to_close() -> None:
    def no_key() -> Client:
        raise ValueError("no key")

    with pytest.raises(ValueError, match="no key"):
        PromptMapper(no_key)


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "ray" or name.startswith("gprochat_anyio.batch.on_ray"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"gprochat-anyio\[ray\]"):
        from gprochat_anyio.batch import on_ray  # noqa: F401, PLC0415
