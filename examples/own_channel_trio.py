"""Your own fan-out on Trio, with a nursery, a channel and a limit."""

import anyio
import trio

from gprochat_anyio import Client, GPROChatError


async def main() -> None:
    prompts = ["Name a colour", "Name a river", "Name a number"]
    send, receive = anyio.create_memory_object_stream[str](16)
    limit = trio.Semaphore(2)

    async with Client.from_env() as client, trio.open_nursery() as nursery, receive:

        async def ask(prompt: str, channel: anyio.abc.ObjectSendStream[str]) -> None:
            async with channel, limit:
                try:
                    reply = await client.stream_to(prompt, channel)
                except GPROChatError as error:  # unhandled, it would cancel the nursery
                    print(f"{prompt}: {error}")
                else:
                    print(f"\n{prompt}: {reply.timing.characters} characters")

        async with send:
            for prompt in prompts:
                nursery.start_soon(ask, prompt, send.clone())
        async for text in receive:  # ends when the last clone is closed
            print(text, end=" ", flush=True)
    print()


trio.run(main)
