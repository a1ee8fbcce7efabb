"""What the client is told, what Postgres holds and what the card says are one number."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import asyncpg
import httpx
import openai
import pytest

from penstock_base import money
from penstock_billing import invariants
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf

CHAT, EMBED = "penstock/demo-chat", "penstock/demo-embed"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
LONG: Any = {
    "messages": [{"role": "user", "content": "Tell me a long story"}],
    "extra_body": {"ignore_eos": True},
}
T = TypeVar("T")


async def until(get: Callable[[], Awaitable[T | None]], within_s: float = 10) -> T:
    """Wait for something to be there."""
    end = time.monotonic() + within_s
    while (found := await get()) is None:
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.05)
    return found


async def event(ledger: asyncpg.Connection, request_id: str) -> asyncpg.Record:
    query = "select * from billing.usage_event where request_id = $1"
    return await until(lambda: ledger.fetchrow(query, request_id))


@pytest.fixture(scope="module")
def card() -> ModelCard:
    found = Shelf.open([BUILTIN]).get(CHAT)
    assert found is not None
    return found


def price(card: ModelCard, row: asyncpg.Record) -> Decimal:
    """Tokens times the card's price, in nano-dollars, by another way than the product's."""
    fresh = row["input_tokens"] - row["cached_tokens"]
    usd = (
        fresh * Decimal(card.prices.input)
        + row["cached_tokens"] * Decimal(card.prices.cached_input)
        + row["output_tokens"] * Decimal(card.prices.output)
    ) / 1_000_000
    return round(usd * 10**9)


async def test_a_whole_answer_costs_what_its_header_says(
    client: openai.OpenAI, ledger: asyncpg.Connection, card: ModelCard
) -> None:
    raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=HELLO)
    usage = raw.parse().usage
    assert usage is not None
    row = await event(ledger, raw.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert row["cost_nano_usd"] == price(card, row) > 0
    assert Decimal(raw.headers["x-penstock-cost-usd"]) * 10**9 == row["cost_nano_usd"]


async def test_a_stream_costs_what_its_usage_says_and_can_be_asked_by_its_id(
    client: openai.OpenAI, ledger: asyncpg.Connection, card: ModelCard, platform: Any
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    usage = list(raw.parse())[-1].usage
    assert usage is not None
    row = await event(ledger, raw.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert row["cost_nano_usd"] == price(card, row)
    shown = platform.ask(f"/api/v1/requests/{raw.headers['x-request-id']}")
    assert shown["cost_nano_usd"] == row["cost_nano_usd"]


async def test_cached_input_is_told_and_priced_as_cached(
    client: openai.OpenAI, ledger: asyncpg.Connection, card: ModelCard
) -> None:
    messages: list[Any] = [{"role": "user", "content": "one two three four five six seven " * 60}]
    for _ in range(2):
        raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=messages, max_tokens=1)
    row = await event(ledger, raw.headers["x-request-id"])
    assert row["cached_tokens"] >= 128
    assert row["cost_nano_usd"] == price(card, row)


async def test_embeddings_are_billed(client: openai.OpenAI, ledger: asyncpg.Connection) -> None:
    raw = client.embeddings.with_raw_response.create(model=EMBED, input=["one", "two"])
    row = await event(ledger, raw.headers["x-request-id"])
    assert row["input_tokens"] == raw.parse().usage.prompt_tokens
    assert row["cost_nano_usd"] > 0


SHAPES: dict[str, dict[str, Any]] = {
    "choices": {"n": 3, "max_tokens": 12, "temperature": 1},
    "stop": {"stop": ["e"], "max_tokens": 60},
    "tools": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "max_tokens": 20,
    },
    "logprobs": {"logprobs": True, "top_logprobs": 2, "max_tokens": 5},
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_an_answer_of_any_shape_costs_what_it_says_and_what_the_engine_made(
    client: openai.OpenAI,
    ledger: asyncpg.Connection,
    card: ModelCard,
    platform: Any,
    shape: str,
    streamed: bool,
) -> None:
    made_before = platform.engine_figure(CHAT, "vllm:generation_tokens_total")
    asked: Any = {"model": CHAT, "messages": HELLO, **SHAPES[shape]}
    if streamed:
        raw = client.chat.completions.with_raw_response.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
        usage = list(raw.parse())[-1].usage
    else:
        raw = client.chat.completions.with_raw_response.create(**asked)
        usage = raw.parse().usage
    row = await event(ledger, raw.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert row["outcome"] == "done"
    assert row["cost_nano_usd"] == price(card, row)

    async def same() -> bool | None:
        made = await asyncio.to_thread(platform.engine_figure, CHAT, "vllm:generation_tokens_total")
        return True if made - made_before == row["output_tokens"] else None

    await until(same, 30)


async def test_a_client_that_leaves_stops_the_engine_and_pays_what_was_made(
    client: openai.OpenAI, ledger: asyncpg.Connection, platform: Any
) -> None:
    made_before = platform.engine_figure(CHAT, "vllm:generation_tokens_total")
    raw = client.chat.completions.with_raw_response.create(model=CHAT, stream=True, max_tokens=1900, **LONG)
    stream = raw.parse()
    for _, _ in zip(stream, range(20), strict=False):
        pass
    stream.close()

    async def idle() -> bool | None:
        running = await asyncio.to_thread(platform.engine_figure, CHAT, "vllm:num_requests_running")
        return True if running == 0 else None

    await until(idle)
    row = await event(ledger, raw.headers["x-request-id"])
    assert row["outcome"] == "client_gone"
    # Far from all that it was allowed to make.
    assert 19 <= row["output_tokens"] < 1900
    assert row["cost_nano_usd"] > 0

    async def same() -> bool | None:
        # The engine writes its own counter a moment after its last step.
        made = await asyncio.to_thread(platform.engine_figure, CHAT, "vllm:generation_tokens_total")
        return True if made - made_before == row["output_tokens"] else None

    await until(same)


async def test_a_client_that_leaves_before_a_whole_answer_pays_what_was_made(
    ledger: asyncpg.Connection, platform: Any
) -> None:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {platform.api_key}"}) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                f"{platform.base_url}/chat/completions",
                json={"model": CHAT, "max_tokens": 1900, "ignore_eos": True, "messages": HELLO},
                headers={"x-client-request-id": "left-early"},
                timeout=0.5,
            )
    query = "select * from billing.usage_event where client_request_id = 'left-early'"
    row = await until(lambda: ledger.fetchrow(query))
    assert row["outcome"] == "client_gone"
    assert 0 < row["output_tokens"] < 1900


async def test_a_refused_request_costs_nothing(client: openai.OpenAI, ledger: asyncpg.Connection) -> None:
    before = await ledger.fetchval("select count(*) from billing.usage_event")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=999_999)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=CHAT, messages=HELLO, temperature=9)
    raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=HELLO, max_tokens=1)
    await event(ledger, raw.headers["x-request-id"])
    assert await ledger.fetchval("select count(*) from billing.usage_event") == before + 1


async def test_the_command_the_api_and_the_ledger_agree(
    client: openai.OpenAI, ledger: asyncpg.Connection, platform: Any
) -> None:
    raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=HELLO, max_tokens=2)
    await event(ledger, raw.headers["x-request-id"])
    shown = json.loads(platform.command("usage", "--json"))
    answer = platform.ask("/api/v1/usage")
    total = sum(row["cost_nano_usd"] for row in shown)
    assert total == sum(row["cost_nano_usd"] for row in answer["data"])
    ours = (
        "select sum(cost_nano_usd) from billing.usage_event "
        "join access.organisation on organisation.id = organisation_id where organisation.name = 'default'"
    )
    assert total == await ledger.fetchval(ours)
    assert money.nano_to_usd(total) in platform.command("usage")


async def test_the_books_balance(ledger: asyncpg.Connection) -> None:
    assert await invariants.check(ledger) == []


def test_engines_journals_and_books_agree(client: openai.OpenAI, platform: Any) -> None:
    client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=2, n=2)
    end = datetime.now(UTC) + timedelta(minutes=1)
    reconciled = subprocess.run(
        (
            *(sys.executable, "-P", "-m", "penstock.cli", "billing", "reconcile", "--json"),
            *("--everything", "--until", end.isoformat()),
        ),
        check=False,
        env=platform.environment,
        capture_output=True,
        text=True,
    )
    report = json.loads(reconciled.stdout)
    assert report["differences"] == []
    assert reconciled.returncode == 0
    assert report["examined"]["engine_requests"] > 0
    assert report["examined"]["engine_boots"] >= 2


async def test_engines_run_in_intervals_that_cost_nobody(
    client: openai.OpenAI, ledger: asyncpg.Connection
) -> None:
    client.embeddings.create(model=EMBED, input="one")  # so that it does not sleep
    query = "select * from billing.running_interval where stopped_at is null and kind = 'instance'"
    rows = await ledger.fetch(query)
    assert {row["model"] for row in rows} == {CHAT, EMBED}
    assert all(row["organisation_id"] is None for row in rows)
    (row, _) = rows

    async def vouched() -> bool | None:
        query = "select seen_at from billing.running_interval where id = $1"
        return True if await ledger.fetchval(query, row["id"]) > row["seen_at"] else None

    await until(vouched, within_s=60)
