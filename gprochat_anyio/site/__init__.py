"""The embedded site: a GPROChat site in this process, on asyncio, uvloop or Trio.

`create_app` returns an ASGI application, and `serve` serves it. Its model is any function that
takes a history and returns an async iterable of texts::

    async def shout(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield turns[-1].text.upper()

    async with anyio.create_task_group() as tg:
        url = await tg.start(serve, shout)

OpenAI's clients use the same model through the site's `/v1` endpoints.

This package requires the extra `site`.
"""

from __future__ import annotations

try:
    from gprochat_anyio._wire.model_api import Finish, Model, ModelError, Turn

    from ._app import create_app
    from ._sample_models import echo_model, offline_model
    from ._serving import serve
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in ("h11", "starlette"):
        raise
    raise ImportError(
        f"the embedded site needs {_error.name}; pip install 'gprochat-anyio[site]'"
    ) from _error

__all__ = [
    "Finish",
    "Model",
    "ModelError",
    "Turn",
    "create_app",
    "echo_model",
    "offline_model",
    "serve",
]
