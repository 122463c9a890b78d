"""Concurrent replies in your own Trio nursery. A failure does not affect the other replies."""

import trio

from gprochat_anyio import Client, GPROChatError


async def ask(client: Client, prompt: str, replies: dict[str, str]) -> None:
    try:
        replies[prompt] = (await client.ask(prompt)).text
    except GPROChatError as error:
        replies[prompt] = f"failed: {error}"


async def main() -> None:
    replies: dict[str, str] = {}
    prompts = ["Name a colour", "Name a river", " "]  # a blank prompt is invalid
    async with Client.from_env() as client, trio.open_nursery() as nursery:
        for prompt in prompts:
            nursery.start_soon(ask, client, prompt, replies)
    for prompt in prompts:
        print(f"{prompt!r}: {replies[prompt]}")


trio.run(main)
