"""Real models to put behind a site: Gemini, whatever speaks OpenAI's API, another GPROChat site.

::

    model = OpenAIModel("http://127.0.0.1:11434/v1", "llama3.2")
    async with anyio.create_task_group() as tg:
        url = await tg.start(serve, model)

Each request has a connection of its own, and a client that leaves closes it at once, also before
the first text. Needs the extra `models`.
"""

from __future__ import annotations

from gprochat_anyio.site._gprochat_model import GPROChatModel

try:
    from ._gemini import GEMINI_MODEL, GEMINI_URL, GeminiModel
    from ._openai import OpenAIModel
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("httpx", "httpx_sse"):
        raise
    raise ImportError(
        f"real models need {error.name}; pip install 'gprochat-anyio[models]'"
    ) from error

__all__ = ["GEMINI_MODEL", "GEMINI_URL", "GPROChatModel", "GeminiModel", "OpenAIModel"]
