"""The site as an ASGI application."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gprochat_anyio._protocol import AUTH_PATH, GENERATE_PATH

from ._intake import Intake, to_response
from ._models import Model, offline_model
from ._reply import Reply
from ._wire import Gate, Refusal


def create_app(
    model: Model | None = None,
    *,
    secret_key: str = "",
    passwords: Iterable[str] = (),
    body_limit: int = 4 * 1024 * 1024,
) -> Starlette:
    """A GPROChat site as an ASGI application, for `serve` or any ASGI server on any event loop.

    The app's `state.protected` says whether it asks for a password.

    :param model: answers the histories; None takes `offline_model`
    :param secret_key: what requests have to be signed with
    :param passwords: any of them is right; none at all lets everybody in
    :param body_limit: the largest request body, in bytes
    :raises ValueError: for an empty password, or a secret key that is no Unicode text
    :raises TypeError: for passwords given as one string
    """
    gate = Gate.of(secret_key, passwords)
    answering = offline_model if model is None else model

    async def generate(request: Request) -> Response | Reply:
        try:
            return Reply(answering, gate.admit(await request.body()))
        except Refusal as refusal:
            return to_response(refusal.answer)

    async def auth(request: Request) -> Response:
        try:
            return to_response(gate.check_password(await request.body()))
        except Refusal as refusal:
            return to_response(refusal.answer)

    app = Starlette(
        routes=[
            Route(GENERATE_PATH, generate, methods=["POST"]),
            Route(AUTH_PATH, auth, methods=["POST"]),
        ],
        middleware=[Middleware(Intake, body_limit=body_limit)],
    )
    app.state.protected = bool(gate.passwords)
    return app
