"""Two replies over your own channel: `start` waits for the first text, then both stream."""

import anyio

from gprochat_anyio import Client


async def main() -> None:
    send, receive = anyio.create_memory_object_stream[str](16)
    async with Client.from_env() as client, anyio.create_task_group() as tg, receive:
        async with send:
            tg.start_soon(client.stream_to, "Count to three", send.clone())
            await tg.start(client.stream_to, "Say the alphabet", send.clone())
        async for text in receive:
            print(text, end=" ", flush=True)
        print()


anyio.run(main)
