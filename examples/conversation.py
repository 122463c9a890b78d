"""A conversation with a stopped reply and a retry, saved to a file and continued."""

import tempfile

import anyio

from gprochat_anyio import Client, Conversation


async def main(file: anyio.Path) -> None:
    async with Client.from_env() as client:
        conversation = Conversation(client, system="Answer in one sentence.")
        await conversation.ask("What is structured concurrency?")
        async with conversation.stream("Tell me everything about it") as chunks:
            async for chunk in chunks:
                print(chunk, end="", flush=True)
                if len(chunks.text) > 40:
                    chunks.stop()  # the conversation keeps the text so far
        print()
        async with conversation.retry() as chunks:
            await chunks.read()
        await file.write_text(conversation.to_json(), encoding="utf-8")
        print(f"{len(conversation.messages)} messages saved")

        again = Conversation.from_json(client, await file.read_text(encoding="utf-8"))
        print((await again.ask("And in short?")).text)


with tempfile.TemporaryDirectory() as folder:
    anyio.run(main, anyio.Path(folder, "conversation.json"))
