"""A site with your own model, in the same process. This needs the extra `site`."""

from collections.abc import AsyncIterator

import anyio

from gprochat_anyio import Client
from gprochat_anyio.site import Turn, serve


async def shout(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    for word in turns[-1].text.split():
        yield f"{word.upper()}! "


async def main() -> None:
    async with anyio.create_task_group() as tg:
        url = await tg.start(serve, shout)
        async with Client(url, trust_env=False) as client:
            print((await client.ask("hello from the same event loop")).text)
        tg.cancel_scope.cancel()


anyio.run(main)
