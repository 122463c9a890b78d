"""The clients that snippets make, over each wire, and led to the servers of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from embedded_site import embedded_site
from support.gemini_server import gemini_server

from gprochat_anyio import Client
from gprochat_anyio.site import offline_model

OTHER_WIRES = ("openai", "gemini", "model")
"""The wires besides that of a GPROChat site."""

_GEMINI_URL = "SNIPPETS_GEMINI_URL"


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """The environment of snippets, with a server of each API, for the time of the block."""
    with embedded_site() as variables, gemini_server() as url:
        yield variables | {
            _GEMINI_URL: url,
            "GEMINI_API_KEY": "a-made-up-key",
            "OPENAI_API_KEY": variables["GPROCHAT_PASSWORD"],
        }


def lead_clients(wire: str) -> None:
    """Lead every client of a model's API to the servers of the tests, whatever its address.

    :param wire: of the clients that `Client.from_env` makes
    """
    if _GEMINI_URL not in os.environ:
        return
    site = os.environ["GPROCHAT_URL"]
    openai, gemini = Client.openai, Client.gemini

    def to_site(_base_url: str, **settings: Any) -> Client:
        return openai(f"{site}/v1", **settings | {"api_key": os.environ["GPROCHAT_PASSWORD"]})

    def to_server(*model: str, **settings: Any) -> Client:
        return gemini(*model, **settings | {"base_url": os.environ[_GEMINI_URL]})

    makers = {
        "openai": partial(to_site, "", model="llama3.2"),
        "gemini": to_server,
        "model": partial(Client.of, partial(offline_model, delay=0)),
    }
    replaced = {"openai": to_site, "gemini": to_server}
    if wire in makers:
        replaced["from_env"] = makers[wire]
    for name, make in replaced.items():
        setattr(Client, name, staticmethod(make))
