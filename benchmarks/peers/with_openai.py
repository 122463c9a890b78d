"""OpenAI's client, which reads one server-sent event for each chunk of the other peers."""

from __future__ import annotations

import openai

from ._peer import Peer, Take


class OpenAI(Peer):
    async def open(self, url: str, at_once: int) -> None:  # noqa: ARG002 - its default is 1,000
        self._client = openai.AsyncOpenAI(
            base_url=url + "/v1",
            api_key="none",
            max_retries=0,
            timeout=300,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        )

    async def close(self) -> None:
        await self._client.close()

    async def reply(self, prompt: str, take: Take) -> None:
        async with await self._client.chat.completions.create(
            model="bench",
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            stream_options={"include_usage": True},
        ) as events:
            async for event in events:
                if event.choices and (text := event.choices[0].delta.content):
                    take(text)
