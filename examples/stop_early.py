"""Enough text, or too long a wait: leaving the block closes the connection at once."""

import anyio

from gprochat_anyio import Client


async def main() -> None:
    async with Client.from_env() as client:
        async with client.stream("Tell me everything") as chunks:
            async for _ in chunks:
                if len(chunks.text) > 40:
                    break
        print(chunks.text)

        with anyio.move_on_after(10) as scope:  # any cancel scope will do
            reply = await client.ask("Tell me more")
            print(f"{len(reply.text)} characters in time")
        if scope.cancelled_caught:
            print("gave up, and the connection is closed")


anyio.run(main)
