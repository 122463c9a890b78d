"""The site as an ASGI application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gprochat_anyio import Client, Fleet
from gprochat_anyio._wire.admission import Gate, Refusal
from gprochat_anyio._wire.gprochat import AUTH_PATH, GENERATE_PATH
from gprochat_anyio._wire.model_api import Model

from ._access import AccessLog
from ._chat_page import ChatPage
from ._client_model import UNNAMED, ClientModel
from ._cross_site_guard import CrossSiteGuard, checked_hosts
from ._intake import Intake, to_response
from ._limited_model import LimitedModel
from ._openai_api import openai_routes
from ._reply_response import StreamedReply
from ._sample_models import offline_model

HEALTH_PATH: Final = "/healthz"
"""The path of the health check, which needs no password and does not call the model."""


def create_app(
    model: Model | Client | Fleet | None = None,
    *,
    secret_key: str = "",
    passwords: Iterable[str] = (),
    hosts: Iterable[str] = (),
    body_limit: int = 4 * 1024 * 1024,
    max_at_once: int | None = None,
    model_name: str | None = None,
    page: bool = True,
) -> Starlette:
    """Return a GPROChat site as an ASGI application, for `serve` or another ASGI server.

    The application's `state.protected` is True if the site has a password.

    :param model: The model that replies to histories. A `Client` or `Fleet` makes the site a
        gateway; the caller closes it. `None` for `offline_model`.
    :param secret_key: The key that signs requests.
    :param passwords: The accepted passwords. Without any, the site is open to everyone. Attempts
        are neither delayed nor counted, because all clients of a proxy share one address: choose
        long random passwords, and limit the rate of requests in the proxy.
    :param hosts: The site's host names besides `localhost` and loopback addresses, such as
        `"chat.example.org"` behind a proxy. A site without a password refuses requests with
        another `Host`, and requests that a browser sends from pages of another origin.
    :param body_limit: Maximum size of a request's body, in bytes, at least 1.
    :param max_at_once: Maximum number of concurrent replies. Further requests are refused as by a
        rate limit. `None` for no limit.
    :param model_name: The model's name for clients of the OpenAI endpoint, and for the page of a
        site without a password. `None` for the model's own `name`, or `"gprochat"` if it has none.
    :param page: Serve the chat page at `/`. The page needs no secret key: everyone who can open it
        can use the model, unless the site has a password. If False, every request needs the key.
    :raises ValueError: If a password is empty, the secret key is not Unicode text, a host is not a
        name or address, or a limit is below 1.
    :raises TypeError: If `passwords` or `hosts` is a single string.
    """
    if body_limit < 1:
        raise ValueError("body_limit must be at least 1 byte")
    names = checked_hosts(hosts)
    gate = Gate.of(secret_key, passwords)
    if isinstance(model, Client | Fleet):
        model = ClientModel(model)
    served = offline_model if model is None else model
    takes_system = bool(getattr(served, "takes_system", False))
    name = model_name or str(getattr(served, "name", UNNAMED))
    # The page is public even if the model is not.
    shown = "" if gate.passwords or name == UNNAMED else name
    chat_page = ChatPage(secret_key, names, model_name=shown) if page else None
    if max_at_once is not None:
        served = LimitedModel(served, max_at_once)

    async def generate(request: Request) -> Response | StreamedReply:
        own = chat_page is not None and chat_page.has_sent(request)
        try:
            turns = gate.admit(await request.body(), signed=not own)
            is_browser = request.headers.get("user-agent", "").startswith("Mozilla/")
            return StreamedReply(served, turns, is_browser=is_browser)
        except Refusal as refusal:
            return to_response(refusal.response)

    async def auth(request: Request) -> Response:
        try:
            return to_response(gate.check_password(await request.body()))
        except Refusal as refusal:
            return to_response(refusal.response)

    async def health(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse({"status": "ok"})

    app = Starlette(
        routes=[
            Route(GENERATE_PATH, generate, methods=["POST"]),
            Route(AUTH_PATH, auth, methods=["POST"]),
            Route(HEALTH_PATH, health, methods=["GET"]),
            *(chat_page.routes() if chat_page is not None else ()),
            *openai_routes(served, gate, name, takes_system=takes_system),
        ],
        middleware=[
            Middleware(AccessLog),
            Middleware(
                CrossSiteGuard, hosts=names, protected=bool(gate.passwords), always=HEALTH_PATH
            ),
            Middleware(Intake, body_limit=body_limit),
        ],
    )
    app.router.redirect_slashes = False  # clients do not follow it, and it would quote their `Host`
    app.state.protected = bool(gate.passwords)
    return app
