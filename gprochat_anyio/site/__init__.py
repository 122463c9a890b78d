"""The embedded site: a GPROChat site in this process, on asyncio, uvloop or Trio.

`create_app` makes the ASGI application, `serve` serves it, and a model behind it is any function
that takes the history and gives an async iterable of texts::

    async def shout(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield turns[-1].text.upper()

    async with anyio.create_task_group() as tg:
        url = await tg.start(serve, shout)

OpenAI's clients find the same model below the site's `/v1`.

Needs the extra `site`.
"""

from __future__ import annotations

try:
    from gprochat_anyio._wire.model_api import Finish, Model, ModelError, Turn

    from ._app import create_app
    from ._sample_models import echo_model, offline_model
    from ._serving import serve
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("hypercorn", "starlette"):
        raise
    raise ImportError(
        f"the embedded site needs {error.name}; pip install 'gprochat-anyio[site]'"
    ) from error

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
