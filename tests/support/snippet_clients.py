"""The clients that snippets make, over each API, directed to the servers of the tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from gprochat_anyio import Client
from gprochat_anyio.site import offline_model
from support.gemini_server import gemini_server

from .embedded_site import embedded_site

OTHER_WIRES = ("openai", "gemini", "model")
"""The APIs other than that of a GPROChat site."""

_GEMINI_URL = "SNIPPETS_GEMINI_URL"
_SCRIPTED = "//scripted-"
"""Part of the testing kit's URLs, which clients use unchanged."""


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Serve each API. Yield the environment of snippets."""
    with embedded_site() as variables, gemini_server() as url:
        yield variables | {
            _GEMINI_URL: url,
            "GEMINI_API_KEY": "a-made-up-key",
            "OPENAI_API_KEY": variables["GPROCHAT_PASSWORD"],
        }


def lead_clients(wire: str) -> None:
    """Direct every client of a model API to the servers of the tests, whatever its URL.

    :param wire: The API of the clients that `Client.from_env` makes.
    """
    if _GEMINI_URL not in os.environ:
        return
    site = os.environ["GPROCHAT_URL"]
    openai, gemini = Client.openai, Client.gemini

    def to_site(base_url: str, **settings: Any) -> Client:
        if _SCRIPTED in base_url:
            return openai(base_url, **settings)
        settings["api_key"] = os.environ["GPROCHAT_PASSWORD"]
        return openai(f"{site}/v1", **settings)

    def to_server(*model: str, **settings: Any) -> Client:
        if _SCRIPTED not in settings.get("base_url", ""):
            settings["base_url"] = os.environ[_GEMINI_URL]
        return gemini(*model, **settings)

    makers: dict[str, Callable[..., Client]] = {
        "openai": partial(to_site, "", model="llama3.2"),
        "gemini": to_server,
        "model": partial(Client.of, partial(offline_model, delay=0)),
    }
    replaced: dict[str, Callable[..., Client]] = {"openai": to_site, "gemini": to_server}
    if wire in makers:
        replaced["from_env"] = makers[wire]
    for name, make in replaced.items():
        setattr(Client, name, staticmethod(make))
