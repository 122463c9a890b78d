"""Types of fan-outs, races and batches. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Literal, assert_never, assert_type

from gprochat_anyio import (
    Chunk,
    Client,
    Failed,
    Finished,
    Fleet,
    GPROChatError,
    Limiter,
    Message,
    Outcome,
    Reply,
    ReplyStream,
    as_completed,
    fan_out,
    gather,
    race,
)
from gprochat_anyio.batch import (
    BatchSummary,
    MergeSummary,
    OutputBusyError,
    OutputError,
    Percentiles,
    ShardLostError,
    merge_shards,
    run_batch,
    run_shard,
)
from gprochat_anyio.batch.on_ray import PromptMapper, run_on_ray


def lines() -> Iterator[str]:
    yield "Hi"


async def histories() -> AsyncIterator[list[Message]]:
    yield [Message("user", "Hi")]


async def events(client: Client, fleet: Fleet) -> None:
    async with fan_out(client, lines(), max_at_once=16, max_per_second=200) as running:
        async for event in running:
            assert_type(event, Chunk | Finished | Failed)
            assert_type(event.index, int)
            match event:
                case Chunk():
                    assert_type(event.text, str)
                case Finished():
                    assert_type(event.reply, Reply)
                case Failed():
                    assert_type(event.error, Exception)
                case _:
                    assert_never(event)
    fan_out(fleet, histories(), limiter=Limiter(max_at_once=4), on_error="raise", adaptive=False)
    fan_out([client, client], lines())  # type: ignore[arg-type]
    fan_out(client, lines(), on_error="ignore")  # type: ignore[arg-type]
    fan_out(client, [1, 2])  # type: ignore[list-item]
    fan_out(client, lines(), 16)  # type: ignore[call-arg]


async def outcomes(client: Client) -> None:
    async with as_completed(client, ["Hi", [Message("user", "Hi")]]) as running:
        async for outcome in running:
            assert_type(outcome, Outcome)
            assert_type(outcome.reply, Reply | None)
            assert_type(outcome.error, Exception | None)
            assert_type(outcome.unwrap(), Reply)
    assert_type(await gather(client, ("Hi", "Ho")), list[Outcome])


async def races(client: Client, fleet: Fleet) -> None:
    async with race([client, fleet], "Hi", hedge_after=2.0) as chunks:
        stream: ReplyStream = chunks
        assert_type(chunks.winner, int)
        assert_type(chunks.client, Client | Fleet)
        async for text in stream:
            assert_type(text, str)
    race(client, "Hi")
    race("Hi", client)  # type: ignore[arg-type]


async def batches(client: Client) -> None:
    shown: list[BatchSummary] = []
    try:
        summary = await run_batch(
            client, "prompts.jsonl", "replies.jsonl", format="jsonl", on_progress=shown.append
        )
    except OutputBusyError as error:
        wider: OutputError = error
        del wider
        return
    assert_type(summary, BatchSummary)
    assert_type(summary.answered, int)
    assert_type(summary.total, int | None)
    assert_type(summary.all_answered, bool)
    assert_type(summary.failures, Mapping[str, int])
    assert_type(summary.latency, Percentiles | None)
    kind: Literal["csv"] = "csv"
    await run_batch(client, "prompts.csv", "replies.jsonl", format=kind)  # type: ignore[arg-type]


def shards(prompts: list[str]) -> None:
    assert_type(run_shard(Client.gemini, prompts, "folder", shard=2, of=8), BatchSummary)
    merged = merge_shards("folder", "replies.jsonl", ordered=True)
    assert_type(merged, MergeSummary)
    assert_type(merged.missing, Mapping[int, int])
    assert_type(merged.complete, bool)
    run_shard(Client.gemini(), prompts, "folder", shard=2, of=8)  # type: ignore[arg-type]
    run_shard(Client.gemini, prompts, "folder", shard=2)  # type: ignore[call-arg]


def on_ray(prompts: list[str]) -> None:
    assert_type(run_on_ray(Client.gemini, prompts, "folder", shards=8), BatchSummary)
    PromptMapper(Client.gemini, max_at_once=16, backend="trio")
    run_on_ray(Client.gemini, prompts, "folder")  # type: ignore[call-arg]
    lost: type[GPROChatError] = ShardLostError
    del lost
