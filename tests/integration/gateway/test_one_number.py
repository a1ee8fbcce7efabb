"""What the client is told, the record, the event, the roll-ups and the ledger are one number, for all shapes
and all ends of a request; the simulated engine's own count is the oracle."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from penstock_billing import frames, invariants, record
from penstock_billing.record import UsageRecord

JSON = {"content-type": "application/json"}
MODEL, EMBED = "penstock/demo-chat", "penstock/demo-embed"
Body = Callable[..., bytes]
Counts = tuple[int, int, int, int]
"""Input, cached input, output and reasoning tokens."""


def counts(usage: dict[str, Any]) -> Counts:
    """As a client reads them."""
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return (
        usage["prompt_tokens"],
        prompt.get("cached_tokens") or 0,
        usage.get("completion_tokens") or 0,
        completion.get("reasoning_tokens") or 0,
    )


def recorded(bench: Any, request_id: str) -> UsageRecord:
    [found] = [
        usage
        for frame in frames.frames(bench.gateway.journal.path, until=bench.gateway.journal.position)
        if (usage := record.decode(frame.body)).request_id == request_id
    ]
    return found


async def one_number(bench: Any, engine: Any, request_id: str) -> tuple[Counts, asyncpg.Record]:
    """Follow the only request of a test from the journal to the ledger; its counts and its row."""
    row = await bench.event(request_id)
    kept = recorded(bench, request_id)
    found = (kept.input_tokens, kept.cached_tokens, kept.output_tokens, kept.reasoning_tokens)
    columns = "input_tokens, cached_tokens, output_tokens, reasoning_tokens"
    assert tuple(row[name] for name in columns.split(", ")) == found
    sums = ", ".join(f"sum({name})" for name in [*columns.split(", "), "requests", "cost_nano_usd"])
    minute = await bench.database.fetchrow(f"select {sums} from billing.usage_minute")
    assert tuple(minute) == (*found, 1, kept.cost_nano_usd)
    revenue = "select coalesce(-sum(posted_nano_usd), 0) from billing.account where kind = 'revenue'"
    spend = "select coalesce(sum(cost_nano_usd), 0) from billing.spend_month"
    for query in (revenue, spend):
        assert await bench.database.fetchval(query) == kept.cost_nano_usd == row["cost_nano_usd"]
    async with bench.database.acquire() as connection:
        assert await invariants.check(connection) == []
    made = (await engine.made())[request_id]
    assert found[0] == made["prompt_tokens"]
    # What is given away is not worth asking the engine for the last token.
    assert found[2] == made["completion_tokens"] or (
        found[2] < made["completion_tokens"] and not kept.cost_nano_usd
    )
    return found, row


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one token": {"max_tokens": 1},
    "many choices": {"n": 5, "max_tokens": 7},
    "stopped by a string": {"stop": ["t9"], "max_tokens": 100},
    "tools": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
    },
    "structured": {"response_format": {"type": "json_object"}},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "n": 2},
    "reasoning": {"reasoning_effort": "low", "max_tokens": 12, "n": 2},
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_chat_of_any_shape_is_one_number(bench: Any, chat: Body, shape: str, streamed: bool) -> None:
    engine = await bench.start_engine()
    reasoning = 3 if shape == "reasoning" else 0
    await engine.breaks(cached_tokens=1, reasoning_tokens=reasoning)
    options = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    async with bench.client() as client:
        answer = await client.post(
            "/v1/chat/completions", content=chat(**SHAPES[shape], **options), headers=JSON
        )
    assert answer.status_code == 200, answer.text
    found, row = await one_number(bench, engine, answer.headers["x-request-id"])
    assert found == told(answer, streamed)
    assert found[1] == 1
    assert found[3] == reasoning * SHAPES[shape].get("n", 1)
    assert row["cost_nano_usd"] == (found[0] - 1) * 100 + 50 + found[2] * 400


def told(answer: httpx.Response, streamed: bool) -> Counts:
    """What the answer itself says it used."""
    if not streamed:
        return counts(answer.json()["usage"])
    *_, last, done, _ = answer.text.split("\n\n")
    assert done == "data: [DONE]"
    return counts(json.loads(last.removeprefix("data: "))["usage"])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_texts_of_several_prompts_are_one_number(bench: Any, streamed: bool) -> None:
    engine = await bench.start_engine()
    await engine.breaks(cached_tokens=2)
    body: dict[str, Any] = {"model": MODEL, "prompt": "one two three four", "max_tokens": 6, "n": 3}
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    async with bench.client() as client:
        answer = await client.post("/v1/completions", json=body)
    found, _ = await one_number(bench, engine, answer.headers["x-request-id"])
    assert found == told(answer, streamed) == (4, 2, 18, 0)


async def test_embeddings_are_one_number(bench: Any) -> None:
    engine = await bench.start_engine(model=EMBED)
    async with bench.client() as client:
        answer = await client.post("/v1/embeddings", json={"model": EMBED, "input": ["a b c", "d", "e f"]})
    found, row = await one_number(bench, engine, answer.headers["x-request-id"])
    assert found == counts(answer.json()["usage"]) == (6, 0, 0, 0)
    # 6 tokens at 18.75 nano-dollars, rounded once and half to even: not 6 times 19.
    assert row["cost_nano_usd"] == 112


@pytest.mark.parametrize(
    ("shape", "cut"),
    [("plain", 0), ("plain", 1), ("plain", 11), ("many choices", 9), ("reasoning", 6), ("tools", 4)],
)
async def test_a_client_gone_is_one_number_which_the_engine_confirms(
    bench: Any, chat: Body, shape: str, cut: int
) -> None:
    engine = await bench.start_engine(tokens_per_second=100, answer_tokens=1000)
    await engine.breaks(cached_tokens=1, reasoning_tokens=2 if shape == "reasoning" else 0)
    stopped = await figure(bench, "stopped")
    body = chat(**(SHAPES[shape] | {"stream": True, "max_tokens": 1000}))
    async with (
        bench.client() as client,
        client.stream("POST", "/v1/chat/completions", content=body, headers=JSON) as answer,
    ):
        seen = 0
        async for line in answer.aiter_lines():
            seen += '"content":" t' in line
            if seen >= cut:
                break
    found, row = await one_number(bench, engine, answer.headers["x-request-id"])
    assert row["outcome"] == "client_gone"
    assert (await engine.made())[answer.headers["x-request-id"]]["outcome"] == "aborted"
    assert cut <= found[2] < 1000 * SHAPES[shape].get("n", 1)
    assert found[1] == 1
    if shape == "reasoning":
        assert found[3] == 4
    assert row["cost_nano_usd"] == (found[0] - 1) * 100 + 50 + found[2] * 400
    assert await figure(bench, "stopped") == stopped + 1


async def figure(bench: Any, result: str) -> float:
    """How many aborts ended so."""
    name = f'penstock_engine_aborts_total{{result="{result}"}} '
    async with bench.client() as client:
        page = (await client.get("/metrics")).text
    return sum(float(line.removeprefix(name)) for line in page.splitlines() if line.startswith(name))


async def test_an_abort_that_is_not_confirmed_is_counted_and_billed_as_last_seen(
    bench: Any, chat: Body
) -> None:
    engine = await bench.start_engine(tokens_per_second=100, answer_tokens=1000)
    unconfirmed = await figure(bench, "unconfirmed")
    async with (
        bench.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", content=chat(stream=True, max_tokens=1000), headers=JSON
        ) as answer,
    ):
        lines = answer.aiter_lines()
        for _ in range(20):
            await anext(lines)
        async with engine.client() as direct:
            await direct.delete("/penstock/oracle")  # it knows nothing of its requests any more
    row = await bench.event(answer.headers["x-request-id"])
    assert row["outcome"] == "client_gone"
    assert 5 <= row["output_tokens"] < 1000
    assert await figure(bench, "unconfirmed") == unconfirmed + 1


@pytest.mark.parametrize("fault", ["die_at_token", "cut_at_token", "error_at_token"])
@pytest.mark.parametrize("token", [1, 2, 3, 10, 19, 20])
async def test_an_engine_that_dies_at_any_token_costs_nothing(
    bench: Any, chat: Body, fault: str, token: int
) -> None:
    engine = await bench.start_engine(answer_tokens=20)
    await engine.breaks(**{fault: token})
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(stream=True), headers=JSON)
    assert "[DONE]" not in answer.text
    row = await bench.event(answer.headers["x-request-id"])
    assert (row["outcome"], row["cost_nano_usd"]) == ("engine_failed", 0)
    assert await bench.database.fetchval("select count(*) from billing.entry") == 0
    async with bench.database.acquire() as connection:
        assert await invariants.check(connection) == []


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("token", [1, 12])
async def test_a_request_that_times_out_at_the_engine_costs_nothing(
    bench: Any, chat: Body, streamed: bool, token: int
) -> None:
    engine = await bench.start_engine()
    await engine.breaks(hang_at_token=token)
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(stream=streamed), headers=JSON)
    row = await bench.event(answer.headers["x-request-id"])
    assert (row["outcome"], row["cost_nano_usd"]) == ("stalled", 0)
    assert row["output_tokens"] <= token

    async def stopped() -> bool | None:
        made = (await engine.made())[answer.headers["x-request-id"]]
        return made["outcome"] == "aborted" or None

    await bench.until(stopped, 30)


async def test_a_client_that_times_out_pays_what_was_made(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine(tokens_per_second=50, answer_tokens=1000)
    headers = JSON | {"x-client-request-id": "impatient"}
    async with bench.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                "/v1/chat/completions", content=chat(max_tokens=1000), headers=headers, timeout=0.5
            )
    row = await bench.event_by_client("impatient")
    assert row["outcome"] == "client_gone"
    found, _ = await one_number(bench, engine, row["request_id"])
    assert 0 < found[2] < 1000


@pytest.mark.parametrize("token", [0, 1, 30])
async def test_a_gateway_that_stops_at_any_token_gives_it_away(bench: Any, chat: Body, token: int) -> None:
    engine = await bench.start_engine(tokens_per_second=40, answer_tokens=5000)
    async with bench.client() as client:

        async def read() -> str:
            seen = 0
            with contextlib.suppress(httpx.TransportError):
                async with client.stream(
                    "POST", "/v1/chat/completions", content=chat(stream=True, max_tokens=2000), headers=JSON
                ) as answer:
                    async for line in answer.aiter_lines():
                        seen += '"content":" t' in line
                        if seen >= token:
                            bench.server.should_exit = True
            return str(answer.headers["x-request-id"])

        request_id = await asyncio.wait_for(read(), 30)
    found, row = await one_number(bench, engine, request_id)
    assert (row["outcome"], row["cost_nano_usd"]) == ("shutdown", 0)
    assert found[2] >= token
