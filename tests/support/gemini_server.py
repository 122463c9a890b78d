"""A server with Gemini's API, whose model replies like the embedded site's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from .model_servers import gemini, stream
from .raw_site import Exchange, raw_site


@contextmanager
def gemini_server() -> Iterator[str]:
    """Serve it on loopback. Yield the URL."""
    with raw_site(_reply) as server:
        yield f"{server.url}/v1beta"


def _reply(exchange: Exchange) -> None:
    words = re.findall(r"\s*\S+", f"This is no language model. You said: {exchange.prompt}")
    exchange.send(stream(*map(gemini, words), gemini(reason="STOP"), eol="\r\n"))
