"""Your own fan-out on asyncio, in a `TaskGroup`: the first failure cancels the others."""

import asyncio

import anyio

from gprochat_anyio import Client, GPROChatError


async def main() -> None:
    prompts = ["Name a colour", "Name a river", "Name a number"]
    send, receive = anyio.create_memory_object_stream[str](16)
    async with Client.from_env() as client, receive:
        try:
            async with asyncio.TaskGroup() as group:
                async with send:
                    tasks = [
                        group.create_task(client.stream_to(prompt, send.clone()))
                        for prompt in prompts
                    ]
                async for text in receive:  # ends when the last clone is closed
                    print(text, end=" ", flush=True)
        except* GPROChatError as failures:
            print(f"failed: {failures.exceptions[0]}")
        else:
            print()
            for prompt, task in zip(prompts, tasks, strict=True):
                print(f"{prompt}: {task.result().timing.characters} characters")


asyncio.run(main())
