"""`--model`: the kinds of models that answer with no site, or behind one of the commands' own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gprochat_anyio import Client
    from gprochat_anyio.site import Model

OFFLINE: Final = "offline"
SAMPLES: Final = (OFFLINE, "echo")
APIS: Final = ("gemini", "openai")
IN_PROCESS: Final = (*SAMPLES, *APIS)
BEHIND_A_SITE: Final = (*IN_PROCESS, "gprochat")

PATIENCE: Final = {"first_chunk": 300.0, "idle": 120.0, "total": inf}
"""Seconds: a model may have to be loaded first, or to think."""

OPENAI_URL: Final = "https://api.openai.com/v1"
GOOGLE: Final = "https://generativelanguage.googleapis.com"
"""The server of Gemini's API, whose address the library knows."""


def api_url(kind: str, given: str | None) -> str | None:
    """The address of a model's API; None is the one that the model has by itself."""
    if kind == "openai":
        return given or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    return given


def sample_model(
    kind: str, name: str | None = None, url: str | None = None, proxy: str | None = None
) -> Model | None:
    """Return the model of a kind that needs no API; None for another kind.

    :raises ValueError: For a setting that it does not take.
    :raises ImportError: Without the extra that it needs.
    """
    if kind not in SAMPLES:
        return None
    if name or url or proxy:
        raise ValueError(f"--model {kind} takes no --url, no --proxy and no --model-name")
    from gprochat_anyio.site import echo_model, offline_model  # noqa: PLC0415 - 100 ms

    return echo_model if kind == "echo" else offline_model


def client_of_model(
    model: str | None,
    url: str | None,
    proxy: str | None,
    timeouts: Mapping[str, float],
    /,
    **settings: Any,
) -> Client:
    """Return a client of a model in this process, or of a model's API.

    :param model: the kind, and after a slash the name of one of the API's models; None for the
        offline one
    :param timeouts: that replace the usual ones of a model
    :param settings: of `Client`, besides; a model in this process takes none
    :raises ValueError: For a setting that is invalid, or missing.
    :raises ImportError: Without the extra that it needs.
    """
    from gprochat_anyio import Client, Timeouts  # noqa: PLC0415 - not for `--help`

    kind, _, name = (model or OFFLINE).partition("/")
    limits = Timeouts(**PATIENCE | dict(timeouts))
    sample = sample_model(kind, name, url, proxy)
    if sample is not None:
        return Client.of(sample, timeouts=limits)
    settings = {"proxy": proxy, "timeouts": limits, **settings}
    return api_client(kind, name or None, url, **settings)


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
        return client_of_kind(kind, name, url, key, **settings)
    if kind == "openai":
        if not name:
            raise ValueError("--model openai needs --model-name, one of the server's models")
        url = api_url(kind, url) or ""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and url == OPENAI_URL:
            raise ValueError(
                "--model openai needs a key: set OPENAI_API_KEY; or give --base-url for a server "
                "of your own, such as http://127.0.0.1:11434/v1"
            )
        return client_of_kind(kind, name, url, key, **settings)
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


def client_of_kind(
    kind: str, name: str | None, url: str | None, key: str | None, **settings: Any
) -> Client:
    """Return a client of OpenAI's API, or of Gemini's.

    :param name: the name of one of the API's models; only Gemini's has one by itself
    :param url: of the API; only Gemini's has one by itself
    :raises ValueError: For a setting that is invalid.
    """
    from gprochat_anyio import Client  # noqa: PLC0415 - not for `--help`

    if kind == "gemini":
        settings |= {n: v for n, v in (("model", name), ("base_url", url)) if v}
        return Client.gemini(api_key=key, **settings)
    return Client.openai(url or OPENAI_URL, model=name or "", api_key=key or None, **settings)
