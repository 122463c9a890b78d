"""Types of the site, the transports and OpenTelemetry. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, assert_type

import anyio
import httpx
import httpx2
from starlette.applications import Starlette

from gprochat_anyio import Client, Fleet, Usage, otel
from gprochat_anyio.site import (
    Finish,
    Model,
    ModelError,
    Turn,
    create_app,
    echo_model,
    offline_model,
    serve,
)
from gprochat_anyio.transport import AnyIOTransport
from gprochat_anyio.transport.httpx2 import AnyIOTransport as AnyIOTransport2


async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    assert_type(turns[-1].role, Literal["user", "model", "system"])
    assert_type(turns[-1].text, str)
    yield "Hi"
    yield Finish("length", Usage(3, 1))
    raise ModelError("too long", status=429, code="length", retry_after=1.5)


async def text(turns: tuple[Turn, ...]) -> str:
    return turns[-1].text


async def sites(client: Client, fleet: Fleet) -> None:
    models: list[Model] = [model, echo_model, offline_model]
    app = create_app(models[0], passwords=["x"], max_at_once=4)
    assert_type(app, Starlette)
    async with anyio.create_task_group() as tg:
        await tg.start(serve, app)
        tg.start_soon(serve, model)
    await serve(client)
    await serve(fleet, until=anyio.Event())
    create_app(text)  # type: ignore[arg-type]
    Finish("stopped")  # type: ignore[arg-type]


async def transports() -> None:
    async with httpx.AsyncClient(transport=AnyIOTransport(max_connections=9)) as http:
        assert_type(await http.get("http://127.0.0.1"), httpx.Response)
    async with httpx2.AsyncClient(transport=AnyIOTransport2()) as http2:
        assert_type(await http2.get("http://127.0.0.1"), httpx2.Response)
    Client("https://chat.example.org", transport=AnyIOTransport())
    Client("https://chat.example.org", transport=AnyIOTransport2())
    Client("https://chat.example.org", transport=object())  # type: ignore[arg-type]
    httpx2.AsyncClient(transport=AnyIOTransport())  # type: ignore[arg-type]


def instrumented(client: Client, fleet: Fleet) -> None:
    otel.instrument(client)
    otel.uninstrument(fleet)
    otel.instrument()
