"""Endpoints with FastAPI: `uvicorn --app-dir examples/web fastapi_app:app`."""

from fastapi import FastAPI, Request
from pydantic import BaseModel
from replies import AtMost, EventsResponse, TextResponse, lifespan, on_failure

from gprochat_anyio import GPROChatError

app = FastAPI(
    lifespan=lifespan,
    exception_handlers={GPROChatError: on_failure},
)
app.add_middleware(AtMost, requests=100)


class Question(BaseModel):
    prompt: str


@app.post("/text", response_class=TextResponse)
async def text(
    asked: Question,
    request: Request,
) -> TextResponse:
    client = request.state.client
    return TextResponse(client.stream(asked.prompt))


@app.post("/events", response_class=EventsResponse)
async def events(
    asked: Question,
    request: Request,
) -> EventsResponse:
    client = request.state.client
    return EventsResponse(client.stream(asked.prompt))
