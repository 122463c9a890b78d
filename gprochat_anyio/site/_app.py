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
from ._client_model import ClientModel
from ._intake import Intake, to_response
from ._limits import AtMost
from ._openai_api import openai_routes
from ._pages import OwnPages
from ._reply_response import StreamedReply
from ._sample_models import offline_model

HEALTH_PATH: Final = "/healthz"
"""Answers without a password, and without the model."""


def create_app(
    model: Model | Client | Fleet | None = None,
    *,
    secret_key: str = "",
    passwords: Iterable[str] = (),
    body_limit: int = 4 * 1024 * 1024,
    max_at_once: int | None = None,
    model_name: str | None = None,
) -> Starlette:
    """A GPROChat site as an ASGI application, for `serve` or any ASGI server on any event loop.

    The app's `state.protected` says whether it asks for a password.

    :param model: Answers the histories. A `Client` or a `Fleet` makes the site a gateway, and stays
        its owner's to close. None is `offline_model`.
    :param secret_key: what requests have to be signed with
    :param passwords: any of them is right; none at all lets everybody in. Guesses are neither
        delayed nor counted, as behind a proxy all clients have one address: take a long random
        one, and limit requests in that proxy.
    :param body_limit: the largest request body, in bytes
    :param max_at_once: how many answers the model may give at once; those who ask for more are
        told to ask again. None is no bound.
    :param model_name: what clients of the OpenAI endpoint see; None takes the model's `name`, if
        it has one, and `"gprochat"` otherwise
    :raises ValueError: for an empty password, or a secret key that is no Unicode text, or a bound
        below 1
    :raises TypeError: for passwords given as one string
    """
    gate = Gate.of(secret_key, passwords)
    if isinstance(model, Client | Fleet):
        model = ClientModel(model)
    answering = offline_model if model is None else model
    takes_system = bool(getattr(answering, "takes_system", False))
    name = model_name or str(getattr(answering, "name", "gprochat"))
    if max_at_once is not None:
        answering = AtMost(answering, max_at_once)

    async def generate(request: Request) -> Response | StreamedReply:
        try:
            return StreamedReply(answering, gate.admit(await request.body()))
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
            *openai_routes(answering, gate, name, takes_system=takes_system),
        ],
        middleware=[
            Middleware(AccessLog),
            Middleware(OwnPages),
            Middleware(Intake, body_limit=body_limit),
        ],
    )
    app.router.redirect_slashes = False  # nobody follows, and it would repeat the client's `Host`
    app.state.protected = bool(gate.passwords)
    return app
