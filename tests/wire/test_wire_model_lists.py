"""Lists of an API's models: their names, and invalid lists."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.decoding import KEY, WIRES

from gprochat_anyio import AuthenticationError, SiteError, UnexpectedResponseError
from gprochat_anyio._wire.api_wire import ModelPage

CHATS = {"supportedGenerationMethods": ["generateContent", "countTokens"]}


@pytest.mark.parametrize(
    ("api", "value", "page"),
    [
        ("openai", {"object": "list", "data": [{"id": "a"}, {"id": "b"}]}, ModelPage(["a", "b"])),
        ("openai", {"object": "list", "data": None}, ModelPage([])),  # Ollama's without a model
        ("openai", [{"id": "a"}], ModelPage(["a"])),  # Together's
        ("openai", {"data": [{"id": 1}, {}, "x", {"id": "a\x1b[2J\nb"}]}, ModelPage(["a [2J b"])),
        ("gemini", {"models": [{"name": "models/a", **CHATS}]}, ModelPage(["a"])),
        ("gemini", {"models": [], "nextPageToken": "t"}, ModelPage([], "t")),
        ("gemini", {"models": [{"name": "a", **CHATS}], "nextPageToken": ""}, ModelPage(["a"])),
        (
            "gemini",
            {
                "models": [
                    {"name": "models/embed", "supportedGenerationMethods": ["embedContent"]},
                    {"name": "models/untold"},
                    {"name": "models/odd", "supportedGenerationMethods": "generateContent"},
                    {"name": 1, **CHATS},
                    "x",
                ],
                "nextPageToken": 1,
            },
            ModelPage([]),
        ),
    ],
)
def test_names(api: str, value: Any, page: ModelPage) -> None:
    assert WIRES[api].read_models(json.dumps(value).encode()) == page


@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("body", ["", "<html>", "5", '"data"', "{}", '{"data": 5, "models": 5}'])
def test_invalid_lists(api: str, body: str) -> None:
    error = WIRES[api].read_models(body.encode())
    assert isinstance(error, UnexpectedResponseError)
    assert "something other than a list of models; check base_url" in str(error)


@pytest.mark.parametrize("api", WIRES)
def test_an_error_with_a_status_of_success(api: str) -> None:
    body = json.dumps({"error": {"message": f"no {KEY}", "code": "overloaded"}}).encode()
    error = WIRES[api].read_models(body)
    assert isinstance(error, SiteError)
    assert (type(error), error.status) == (SiteError, 503)
    assert KEY not in str(error)


@pytest.mark.parametrize("api", WIRES)
def test_errors(api: str) -> None:
    wire = WIRES[api]
    assert wire.check_head(200, {"content-type": "text/html"}) is None, "the body says more"
    assert isinstance(wire.check_head(302, {"location": "/"}), UnexpectedResponseError)
    compressed = wire.check_head(200, {"content-encoding": f"gzip {KEY}"})
    assert compressed is not None
    assert KEY not in str(compressed)
    assert isinstance(wire.read_error(401, {}, b""), AuthenticationError)


def test_paths() -> None:
    assert WIRES["openai"].models_path(None) == "/models"
    assert WIRES["gemini"].models_path(None) == "/models?pageSize=1000"
    assert WIRES["gemini"].models_path("a/b&c=%") == (
        "/models?pageSize=1000&pageToken=a%2Fb%26c%3D%25"
    )
