"""One prompt and its reply, from the site at GPROCHAT_URL."""

import anyio

from gprochat_anyio import Client


async def main() -> None:
    async with Client.from_env() as client:
        reply = await client.ask("What is structured concurrency?")
        print(reply.text)
        print(f"first text after {reply.timing.first_chunk:.2f} s")


anyio.run(main)
