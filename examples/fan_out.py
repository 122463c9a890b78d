"""Many concurrent prompts on Trio, with each reply's text as it arrives."""

import trio

from gprochat_anyio import Chunk, Client, Failed, Finished, fan_out


async def main() -> None:
    prompts = (f"What is the square of {n}?" for n in range(1, 9))  # taken as slots become free
    async with (
        Client.from_env() as client,
        fan_out(client, prompts, max_at_once=3, max_per_second=50) as events,
    ):
        async for event in events:
            match event:
                case Chunk(index, text):
                    print(f"{index}: {text}")
                case Finished(index, reply):
                    print(f"{index}: done in {reply.timing.total:.2f} s")
                case Failed(index, error):
                    print(f"{index}: failed: {error}")


trio.run(main)
