"""Many concurrent prompts on asyncio. Outcomes come as they end, or in the input's order."""

import asyncio

from gprochat_anyio import Client, as_completed, gather

PROMPTS = ["Name a colour", "Name a river", " "]  # a blank prompt is invalid


async def main() -> None:
    async with Client.from_env() as client:
        async with as_completed(client, PROMPTS) as outcomes:
            async for outcome in outcomes:
                print(f"number {outcome.index} has ended")

        for outcome in await gather(client, PROMPTS):
            if outcome.reply is not None:
                print(f"{outcome.prompt!r}: {outcome.reply.text}")
            else:
                print(f"{outcome.prompt!r}: failed: {outcome.error}")


asyncio.run(main())
