"""A race of two clients for the first text, and a second attempt if a reply is slow."""

import anyio

from gprochat_anyio import Client, race


async def main() -> None:
    async with Client.from_env() as one, Client.from_env() as other:
        async with race([one, other], "Who is faster?") as chunks:
            async for chunk in chunks:
                print(chunk, end="", flush=True)
        print(f"\nclient {chunks.winner} won; the other's connection was closed at that moment")

        async with race(one, "Hello", hedge_after=2.0) as chunks:  # a second attempt after 2 s
            print(await chunks.read())


anyio.run(main)
