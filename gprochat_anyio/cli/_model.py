"""`--model`: what answers behind a site of the commands' own, or with no site at all."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from gprochat_anyio.site import Model

OFFLINE: Final = "offline"
IN_PROCESS: Final = (OFFLINE, "echo", "gemini", "openai")
BEHIND_A_SITE: Final = (*IN_PROCESS, "gprochat")

_OPENAI_URL: Final = "https://api.openai.com/v1"

model_option = click.option(
    "--model",
    metavar="KIND",
    type=click.Choice(IN_PROCESS),
    help="No site: offline, echo, gemini, openai.",
)
model_name_option = click.option(
    "--model-name", metavar="NAME", help="Which of its API's: gemini-2.5-pro, llama3.2"
)


def api_url(kind: str, given: str | None) -> str | None:
    """The address of a model's API; None is the one that the model has by itself."""
    if kind == "openai":
        return given or os.environ.get("OPENAI_BASE_URL") or _OPENAI_URL
    return given


@asynccontextmanager
async def opened(
    kind: str, name: str | None = None, url: str | None = None, proxy: str | None = None
) -> AsyncIterator[Model]:
    """The model, for the time of the block. Keys come from the environment alone.

    :param kind: one of `BEHIND_A_SITE`
    :param name: which of the API's models
    :param url: of the API, or of the site behind
    :raises ValueError: for a setting that can not be, or is missing
    :raises ImportError: without an extra that it needs
    """
    from gprochat_anyio.site import echo_model, offline_model  # noqa: PLC0415 - 100 ms

    if kind in (OFFLINE, "echo"):
        if name or url or proxy:
            raise ValueError(f"--model {kind} takes no --url, no --proxy and no --model-name")
        yield echo_model if kind == "echo" else offline_model
        return
    from gprochat_anyio.site import models  # noqa: PLC0415

    if kind == "gemini":
        key = os.environ.get("GEMINI_API_KEY", "").strip()
        if not key:
            raise ValueError(
                "--model gemini needs a key of aistudio.google.com: set GEMINI_API_KEY"
            )
        yield models.GeminiModel(
            key, name or models.GEMINI_MODEL, base_url=url or models.GEMINI_URL, proxy=proxy
        )
    elif kind == "openai":
        if not name:
            raise ValueError("--model openai needs --model-name, one of the server's models")
        url = api_url(kind, url) or ""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and url == _OPENAI_URL:
            raise ValueError(
                "--model openai needs a key: set OPENAI_API_KEY; or give --base-url for a server "
                "of your own, such as http://127.0.0.1:11434/v1"
            )
        yield models.OpenAIModel(url, name, api_key=key, proxy=proxy)
    else:
        if name:
            raise ValueError("a GPROChat site chooses its model; leave --model-name out")
        url = url or os.environ.get("GPROCHAT_UPSTREAM_URL")
        if not url:
            raise ValueError("--model gprochat needs the site to ask: give --url")
        from gprochat_anyio import Client, Retry, Timeouts  # noqa: PLC0415 - not for `--help`

        async with Client(
            url,
            secret_key=os.environ.get("GPROCHAT_UPSTREAM_SECRET_KEY", ""),
            password=os.environ.get("GPROCHAT_UPSTREAM_PASSWORD"),
            timeouts=Timeouts(first_chunk=300, idle=120, total=None),  # its own clients have theirs
            retry=Retry(attempts=2),
            proxy=proxy,
        ) as client:
            yield models.GPROChatModel(client)
