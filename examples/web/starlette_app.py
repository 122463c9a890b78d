"""Endpoints with Starlette: `uvicorn --app-dir examples/web starlette_app:app`."""

from replies import AtMost, EventsResponse, TextResponse, lifespan, on_failure
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route

from gprochat_anyio import GPROChatError


async def text(request: Request) -> TextResponse:
    client, asked = request.state.client, await request.json()
    return TextResponse(client.stream(asked["prompt"]))


async def events(request: Request) -> EventsResponse:
    client, asked = request.state.client, await request.json()
    return EventsResponse(client.stream(asked["prompt"]))


app = Starlette(
    routes=[
        Route("/text", text, methods=["POST"]),
        Route("/events", events, methods=["POST"]),
    ],
    middleware=[Middleware(AtMost, requests=100)],
    exception_handlers={GPROChatError: on_failure},
    lifespan=lifespan,
)
