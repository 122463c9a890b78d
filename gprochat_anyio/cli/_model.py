"""`--model`: what answers behind a site of the commands' own, or with no site at all."""

from __future__ import annotations

import os
from math import inf
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from gprochat_anyio import Client
    from gprochat_anyio.site import Model

OFFLINE: Final = "offline"
IN_PROCESS: Final = (OFFLINE, "echo", "gemini", "openai")
BEHIND_A_SITE: Final = (*IN_PROCESS, "gprochat")

PATIENCE: Final = {"first_chunk": 300.0, "idle": 120.0, "total": inf}
"""Seconds: a model may have to be loaded first, or to think."""

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


def sample_model(
    kind: str, name: str | None = None, url: str | None = None, proxy: str | None = None
) -> Model | None:
    """Return the model of a kind that needs no API; None for another kind.

    :raises ValueError: For a setting that it does not take.
    :raises ImportError: Without the extra that it needs.
    """
    if kind not in (OFFLINE, "echo"):
        return None
    if name or url or proxy:
        raise ValueError(f"--model {kind} takes no --url, no --proxy and no --model-name")
    from gprochat_anyio.site import echo_model, offline_model  # noqa: PLC0415 - 100 ms

    return echo_model if kind == "echo" else offline_model


def api_client(
    kind: str, name: str | None = None, url: str | None = None, **settings: Any
) -> Client:
    """Return a client of a model's API, or of a site. Keys come from the environment alone.

    :param kind: one of `BEHIND_A_SITE` that is not a sample
    :param name: the name of one of the API's models
    :param url: of the API, or of the site
    :param settings: of `Client`, besides
    :raises ValueError: For a setting that is invalid, or missing.
    """
    from gprochat_anyio import Client, Timeouts  # noqa: PLC0415 - not for `--help`

    settings = {"timeouts": Timeouts(**PATIENCE), **settings}
    if kind == "gemini":
        key = os.environ.get("GEMINI_API_KEY", "").strip()
        if not key:
            raise ValueError(
                "--model gemini needs a key of aistudio.google.com: set GEMINI_API_KEY"
            )
        settings |= {n: v for n, v in (("model", name), ("base_url", url)) if v}
        return Client.gemini(api_key=key, **settings)
    if kind == "openai":
        if not name:
            raise ValueError("--model openai needs --model-name, one of the server's models")
        url = api_url(kind, url) or ""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and url == _OPENAI_URL:
            raise ValueError(
                "--model openai needs a key: set OPENAI_API_KEY; or give --base-url for a server "
                "of your own, such as http://127.0.0.1:11434/v1"
            )
        return Client.openai(url, model=name, api_key=key or None, **settings)
    if name:
        raise ValueError("a GPROChat site chooses its model; leave --model-name out")
    url = url or os.environ.get("GPROCHAT_UPSTREAM_URL")
    if not url:
        raise ValueError("--model gprochat needs the site to ask: give --url")
    settings |= {
        "secret_key": os.environ.get("GPROCHAT_UPSTREAM_SECRET_KEY", ""),
        "password": os.environ.get("GPROCHAT_UPSTREAM_PASSWORD"),
    }
    return Client(url, **settings)
