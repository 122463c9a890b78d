"""Conversations with a site that replies as the prompt says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from anyio.lowlevel import checkpoint

from gprochat_anyio import Conversation, Retry
from gprochat_anyio.testing import Drop, Hang, Refuse, Reply, Request, Say, Script, ScriptedSite

from .prompted import prompted

CUT = [Say("one "), Drop()]
REFUSED = Refuse(400, "no")


def answer(request: Request) -> Script:
    """Return the script for a prompt: by default, its text in capitals."""
    scripts: dict[str, Script] = {
        "slow": [Say("one "), checkpoint, Say("two"), checkpoint],
        "endless": [Say("one "), Hang()],
        "white": "\n",
        "white, endless": [Say("\n"), Hang()],
        "cut": CUT,
        "refused": REFUSED,
    }
    question = request.prompt.rpartition("\n\n")[2]
    return scripts.get(question, question.upper())


@asynccontextmanager
async def conversing(
    *args: Any, replies: Sequence[Reply] = (answer,)
) -> AsyncIterator[tuple[Conversation, ScriptedSite]]:
    async with prompted(*replies, retry=Retry(attempts=1)) as (client, site):
        yield Conversation(client, *args), site


def said(conversation: Conversation) -> list[str]:
    return [f"{m.role}: {m.content}" for m in conversation.messages]


def sent(site: ScriptedSite) -> list[str]:
    """Return the last request's history."""
    return [f"{turn.role}: {turn.text}" for turn in site.requests[-1].messages]
