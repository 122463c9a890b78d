"""The original provider's interface, which flattens a history into one message."""

import asyncio
from contextlib import aclosing

from gprochat_anyio import GPROChat

HISTORY = [
    {"role": "user", "content": "My name is Ada."},
    {"role": "assistant", "content": "Hello, Ada!"},
    {"role": "user", "content": "What is my name?"},
]


async def main() -> None:
    reply = GPROChat().create_async_generator(model="gemini-1.5-pro", messages=HISTORY)
    async with aclosing(reply):  # closes the connection immediately, even after a `break`
        async for chunk in reply:
            print(chunk, end="", flush=True)
    print()


asyncio.run(main())
