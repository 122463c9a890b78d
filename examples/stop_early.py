"""Two ways to stop a reply early: leaving its block, and a cancel scope."""

import anyio

from gprochat_anyio import Client


async def main() -> None:
    async with Client.from_env() as client:
        async with client.stream("Tell me everything") as chunks:
            async for _ in chunks:
                if len(chunks.text) > 40:
                    break
        print(chunks.text)

        with anyio.move_on_after(10) as scope:  # any cancel scope works
            reply = await client.ask("Tell me more")
            print(f"{len(reply.text)} characters in time")
        if scope.cancelled_caught:
            print("gave up, and the connection is closed")


anyio.run(main)
