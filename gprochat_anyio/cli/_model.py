"""The kinds of models that `--model` names: samples in the process, and APIs."""

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
OPENAI: Final = "openai"
APIS: Final = ("gemini", OPENAI)
SINGLE: Final = (*SAMPLES, "gemini")
"""The kinds that do not need the name of a model."""
IN_PROCESS: Final = (*SAMPLES, *APIS)
BEHIND_A_SITE: Final = (*IN_PROCESS, "gprochat")

PATIENCE: Final = {"first_chunk": 300.0, "idle": 120.0, "total": inf}
"""Timeouts in seconds. A model may need to be loaded, or to think."""

OPENAI_URL: Final = "https://api.openai.com/v1"
GOOGLE: Final = "https://generativelanguage.googleapis.com"
"""The default server of Gemini's API."""


def api_url(kind: str, given: str | None) -> str | None:
    """Return the address of a model's API. None for the kind's default."""
    if kind == "openai":
        return given or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    return given


def sample_model(
    kind: str, name: str | None = None, url: str | None = None, proxy: str | None = None
) -> Model | None:
    """Return the model of a kind without an API. None for other kinds.

    :raises ValueError: If a setting is given, since these models have none.
    :raises ImportError: If the extra is missing.
    """
    if kind not in SAMPLES:
        return None
    if name or url or proxy:
        raise ValueError(f"--model {kind} takes no --base-url, no --proxy and no --model-name")
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

    :param model: The kind, or the kind, a slash and the name of one of the API's models. None for
        the offline model.
    :param timeouts: Timeouts that replace those of `PATIENCE`.
    :param settings: Further settings of `Client`, for an API only.
    :raises ValueError: If a setting is invalid or missing.
    :raises ImportError: If the extra is missing.
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
    """Return a client of a model's API or of a site. Keys come from the environment only.

    :param kind: A kind of `BEHIND_A_SITE` that is not a sample.
    :param name: The name of one of the API's models.
    :param url: The address of the API or the site.
    :param settings: Further settings of `Client`.
    :raises ValueError: If a setting is invalid or missing.
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
    """Return a client of OpenAI's or Gemini's API.

    :param name: The name of one of the API's models. None for Gemini's default.
    :param url: The address of the API. None for its default.
    :raises ValueError: If a setting is invalid.
    """
    from gprochat_anyio import Client  # noqa: PLC0415 - not for `--help`

    if kind == "gemini":
        settings |= {n: v for n, v in (("model", name), ("base_url", url)) if v}
        return Client.gemini(api_key=key, **settings)
    return Client.openai(url or OPENAI_URL, model=name or "", api_key=key or None, **settings)
