"""Functions that build endpoints from a client's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gprochat_anyio._settings import AsyncTransport, Retry, Timeouts, check
from gprochat_anyio._wire.model_api import Model
from gprochat_anyio._wire.model_wire import ModelWire
from gprochat_anyio._wire.wire import Wire
from gprochat_anyio.transport._pool import Pool

from .address import SiteAddress
from .endpoint import Endpoint
from .limiter import Limiter
from .model_exchange import ModelSender
from .native import NativeSender
from .opening import Sender

if TYPE_CHECKING:
    import ssl


MAX_REPLY_SIZE = 64 * 1024 * 1024
"""Default maximum size of a reply's body in bytes. No model's reply is as long, and one fits into
memory."""


def endpoint_at(
    url: str,
    wire: Wire,
    *,
    url_argument: str = "url",
    from_page: bool = False,
    model: str | None = None,
    secret: str | None = None,
    timeouts: Timeouts | None = None,
    retry: Retry | None = None,
    limiter: Limiter | None = None,
    proxy: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    trust_env: bool = True,
    max_connections: int | None = 1000,
    max_reply_size: int | None = MAX_REPLY_SIZE,
    transport: AsyncTransport | None = None,
) -> Endpoint:
    """Return the endpoint at an address. Most parameters are those of `Client`.

    :param url_argument: The name of the client's argument for the address, for errors.
    :param from_page: Send the `Origin` and `Referer` of the site's own page.
    :param secret: The name of the secret in requests, or `None`. Sending it to another machine over
        plain `http://` emits a warning.
    :raises ValueError: If a setting is invalid. The message names it.
    """
    _check_shared(timeouts, retry, limiter)
    for name, bound in (("connections", max_connections), ("reply_size", max_reply_size)):
        _check_bound(f"max_{name}", bound)
    if transport is not None and (proxy is not None or ssl_context is not None):
        raise ValueError("proxy and ssl_context are settings of the transport: set them there")
    address = SiteAddress(
        url,
        argument=url_argument,
        proxy=proxy,
        fields=wire.headers,
        from_page=from_page,
        headers=headers,
        trust_env=trust_env and transport is None,
    )
    if address.path.endswith(wire.path):
        raise ValueError(
            f"{url_argument} must be the address above {wire.path}, which is added to it: leave"
            f" {wire.path} out"
        )
    if secret and proxy is None and transport is None:
        address.warn_if_plain(secret)
    return Endpoint(
        sender_to(
            address, transport=transport, ssl_context=ssl_context, max_connections=max_connections
        ),
        wire,
        address=address,
        model=model,
        timeouts=timeouts or Timeouts(),
        retry=retry or Retry(),
        limiter=limiter,
        max_reply_size=max_reply_size,
    )


def endpoint_of_model(
    model: Model,
    *,
    name: str | None,
    timeouts: Timeouts | None,
    retry: Retry | None,
    limiter: Limiter | None,
    max_reply_size: int | None,
) -> Endpoint:
    """Return the endpoint of a model in this process. The parameters are those of `Client.of`.

    :raises ValueError: If a setting is invalid. The message names it.
    """
    check("name", name, str, type(None))
    _check_shared(timeouts, retry, limiter)
    _check_bound("max_reply_size", max_reply_size)
    return Endpoint(
        ModelSender(model),
        ModelWire(),
        address=None,
        model=name or _name_of(model),
        timeouts=timeouts or Timeouts(),
        retry=retry or Retry(),
        limiter=limiter,
        max_reply_size=max_reply_size,
    )


def _check_shared(timeouts: Timeouts | None, retry: Retry | None, limiter: Limiter | None) -> None:
    check("timeouts", timeouts, Timeouts, type(None))
    check("retry", retry, Retry, type(None))
    check("limiter", limiter, Limiter, type(None))


def _check_bound(name: str, bound: int | None) -> None:
    check(name, bound, int, type(None))
    if bound is not None and bound < 1:
        raise ValueError(f"{name} must be at least 1, or None for no limit")


def _name_of(model: Model) -> str:
    inner = getattr(model, "func", model)  # of a partial
    name = getattr(inner, "name", None) or getattr(inner, "__name__", type(inner).__name__)
    return str(name)


def sender_to(
    address: SiteAddress,
    *,
    transport: AsyncTransport | None,
    ssl_context: ssl.SSLContext | None,
    max_connections: int | None,
) -> Sender:
    """Return the sender of an address. Closing it closes the idle connections, or the transport."""
    if transport is None:
        pool = Pool(max_connections=max_connections, ssl_context=ssl_context)
        return NativeSender(address, pool)
    from gprochat_anyio.transport._anyio_transport import connections_of  # noqa: PLC0415

    from .foreign import ForeignSender  # noqa: PLC0415

    own = connections_of(transport)
    if own is not None:
        return NativeSender(address.by(own.proxy), own.pool)
    return ForeignSender(address.url, address.headers, transport)
