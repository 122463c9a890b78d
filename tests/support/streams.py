"""Clients of live sites that retry immediately, and a reply without an end."""

from __future__ import annotations

from functools import partial

from gprochat_anyio import Retry
from gprochat_anyio.testing import Hang, Say

from .prompted import prompted

OPEN_ENDED = [Say("one"), Hang()]
client_of = partial(prompted, retry=Retry(backoff=0))
