"""What a gateway that is killed had given away is charged as far as it was noted, and nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.serving import notes, relay
from penstock_billing import boots, invariants, progress
from penstock_billing.record import UsageRecord

JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
Body = Callable[..., bytes]

UNNOTED_TOKENS_MAX = notes.NOTE_TOKENS + 64
"""Of one stream: what is not due yet, and a checkpoint's distance, generously."""


async def read_stream(client: httpx.AsyncClient, body: bytes, name: str, seen: dict[str, int]) -> None:
    """Read a stream until it breaks, counting its tokens."""
    seen[name] = 0
    headers = JSON | {"x-client-request-id": name}
    with contextlib.suppress(httpx.TransportError):
        async with client.stream("POST", CHAT, content=body, headers=headers) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                seen[name] += '"content":" t' in line


def noted(bench: Any) -> list[UsageRecord]:
    """What lies in the progress files of the gateways beside the one under test."""
    folder: Path = bench.gateway.journal.folder
    own = bench.gateway.journal.boot_id.hex()
    return [
        each
        for boot, remains in boots.look(folder).items()
        if boot != own and remains.progress is not None
        for each in progress.read(remains.progress)
    ]


def adopt_nothing(bench: Any) -> None:
    """Until `adopt`, the gateway that lives does not look for dead processes' files."""
    bench.gateway.shipper._scan_at_s = math.inf


async def adopt(bench: Any) -> None:
    """Until nothing of a dead process is left to do."""

    async def done() -> bool | None:
        bench.gateway.shipper._scan_at_s = 0.0
        await bench.gateway.shipper.ship_once()
        query = "select count(*) = 1 from billing.gateway_boot where settled_at is not null"
        settled: bool = await bench.database.fetchval(query)
        return settled or None

    await bench.until(done, 30)


async def agree(bench: Any) -> None:
    async with bench.database.acquire() as connection:
        assert await invariants.check(connection) == []


async def test_streams_of_a_killed_gateway_are_charged_as_noted(
    bench: Any, chat: Body, second_gateway: Any
) -> None:
    engine = await bench.start_engine(tokens_per_second=150, answer_tokens=100_000)
    await engine.breaks(cached_tokens=1)
    adopt_nothing(bench)
    seen: dict[str, int] = {}
    async with second_gateway() as (other, process):
        body = chat(stream=True, max_tokens=2000)
        readers = [asyncio.create_task(read_stream(other, body, f"s{n}", seen)) for n in range(4)]

        async def all_noted_twice() -> bool | None:
            return len([each for each in noted(bench) if each.output_tokens > 400]) == 4 or None

        await bench.until(all_noted_twice, 30)
        process.kill()
        await process.wait()
        await asyncio.gather(*readers)
    await adopt(bench)
    made = await engine.made()
    for name, tokens in seen.items():
        row = await bench.event_by_client(name)
        assert row["outcome"] == "recovered"
        assert (
            tokens - UNNOTED_TOKENS_MAX
            <= row["output_tokens"]
            <= made[row["request_id"]]["completion_tokens"]
        )
        assert row["output_tokens"] > 400
        # What the engine had cached is known, although no event of the stream had told it yet.
        assert (row["input_tokens"], row["cached_tokens"]) == (2, 1)
        assert row["cost_nano_usd"] == 100 + 50 + row["output_tokens"] * 400
    assert bench.gateway.shipper.state.recovered == 4
    assert await bench.database.fetchval("select count(*) from billing.usage_event") == 4
    await agree(bench)


async def test_what_is_not_streamed_or_too_young_costs_nothing_when_its_gateway_is_killed(
    bench: Any, chat: Body, second_gateway: Any
) -> None:
    engine = await bench.start_engine(tokens_per_second=100, answer_tokens=100_000)
    adopt_nothing(bench)
    async with second_gateway() as (other, process):
        whole = asyncio.create_task(other.post(CHAT, content=chat(max_tokens=1000), headers=JSON))
        young = asyncio.create_task(read_stream(other, chat(stream=True, max_tokens=1000), "young", {}))

        async def under_way() -> bool | None:
            counts = [each["completion_tokens"] for each in (await engine.made()).values()]
            return (len(counts) == 2 and min(counts) > 5) or None

        await bench.until(under_way, 30)
        process.kill()
        await process.wait()
        with pytest.raises(httpx.TransportError):
            await whole
        await young
    await adopt(bench)
    assert await bench.database.fetchval("select count(*) from billing.usage_event") == 0


async def test_a_retry_that_was_promised_an_answer_gets_it_for_one_charge(
    bench: Any, chat: Body, second_gateway: Any
) -> None:
    engine = await bench.start_engine(tokens_per_second=600)
    adopt_nothing(bench)
    body, headers = chat(stream=True, max_tokens=1200, ignore_eos=True), JSON | {"idempotency-key": "a"}
    async with second_gateway() as (other, process):
        lost = asyncio.create_task(other.post(CHAT, content=body, headers=headers))

        async def long_enough() -> bool | None:
            counts = [each["completion_tokens"] for each in (await engine.made()).values()]
            return max(counts, default=0) > 600 or None

        await bench.until(long_enough, 30)
        process.kill()
        await process.wait()
        with pytest.raises(httpx.TransportError):
            await lost
    await adopt(bench)
    async with bench.client() as client:
        answer = await client.post(CHAT, content=body, headers=headers)
    assert answer.status_code == 200
    assert "[DONE]" in answer.text
    row = await bench.event(answer.headers["x-request-id"])
    assert (row["outcome"], row["output_tokens"]) == ("done", 1200)
    assert await bench.database.fetchval("select count(*) from billing.usage_event") == 1


async def test_a_slow_stream_is_noted_by_the_clock_and_its_note_cleared_at_its_end(
    bench: Any, chat: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "CHECK_EVERY_S", 0.2)
    monkeypatch.setattr(notes, "NOTE_S", 0.2)
    await bench.start_engine(tokens_per_second=8, answer_tokens=100)
    path = bench.gateway.progress.path
    async with bench.client() as client:
        asked = asyncio.create_task(client.post(CHAT, content=chat(stream=True, max_tokens=20), headers=JSON))

        async def is_noted() -> UsageRecord | None:
            return next(iter(progress.read(path)), None)

        early = await bench.until(is_noted, 30)
        assert early.output_tokens < 20
        answer = await asked
    assert list(progress.read(path)) == []
    assert (await bench.event(answer.headers["x-request-id"]))["outcome"] == "done"


async def test_a_gateway_that_ends_leaves_no_notes_and_is_settled(
    bench: Any, chat: Body, second_gateway: Any
) -> None:
    await bench.start_engine(tokens_per_second=150, answer_tokens=100_000)
    adopt_nothing(bench)
    async with second_gateway() as (other, process):
        reader = asyncio.create_task(read_stream(other, chat(stream=True, max_tokens=2000), "cut", {}))

        async def is_noted() -> bool | None:
            return bool(noted(bench)) or None

        await bench.until(is_noted, 30)
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)
        await reader
    row = await bench.event_by_client("cut")
    assert (row["outcome"], row["cost_nano_usd"]) == ("shutdown", 0)
    assert not noted(bench)
    assert (
        await bench.database.fetchval(
            "select count(*) from billing.gateway_boot where settled_at is not null"
        )
        == 1
    )
