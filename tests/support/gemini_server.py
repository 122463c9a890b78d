"""A server with Gemini's API, whose model says what the embedded site's does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from model_servers import gemini, stream
from raw_site import Exchange, raw_site


@contextmanager
def gemini_server() -> Iterator[str]:
    """The URL of a server on loopback, for the time of the block."""
    with raw_site(_reply) as server:
        yield f"{server.url}/v1beta"


def _reply(exchange: Exchange) -> None:
    words = re.findall(r"\s*\S+", f"This is no language model. You said: {exchange.prompt}")
    exchange.send(stream(*map(gemini, words), gemini(reason="STOP"), eol="\r\n"))
