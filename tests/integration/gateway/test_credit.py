"""Prepaid credit at a gateway: who is let in, what is held, and how a stream ends when there is no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest

from penstock_billing import invariants
from penstock_billing.leases import Wallet
from penstock_billing.testing import credit_nano_usd, fund

JSON = {"content-type": "application/json"}
CENT = 10_000_000
INPUT, OUTPUT = 100, 400
"""Nano-dollars per token."""
Body = Callable[..., bytes]


@pytest.fixture
def prepaid(bench: Any) -> Callable[..., Any]:
    """Make the key's organisation (or its project) prepaid, known to the gateway."""

    async def make(nano_usd: int, *, strict: bool = False, project: bool = False) -> Wallet:
        row = await bench.database.fetchrow("select organisation_id, project_id from access.api_key")
        wallet = Wallet(row["organisation_id"], row["project_id"] if project else 0)
        async with bench.database.acquire() as connection:
            await fund(connection, wallet, nano_usd, strict=strict)
        await bench.gateway.wallets.refresh(bench.database)
        return wallet

    return make


async def credit(bench: Any, wallet: Wallet) -> int:
    async with bench.database.acquire() as connection:
        return await credit_nano_usd(connection, wallet)


async def sound(bench: Any) -> None:
    async with bench.database.acquire() as connection:
        assert await invariants.check(connection) == []


async def test_a_prepaid_request_is_paid_from_credit(bench: Any, prepaid: Any, chat: Body) -> None:
    wallet = await prepaid(10 * CENT)
    await bench.start_engine()
    async with bench.client() as client:
        for stream in (False, True):
            answer = await client.post("/v1/chat/completions", content=chat(stream=stream), headers=JSON)
            assert answer.status_code == 200
            row = await bench.event(answer.headers["x-request-id"])
            assert (row["funding"], row["wallet_project_id"]) == ("prepaid", 0)
    spent = await bench.database.fetchval("select sum(cost_nano_usd) from billing.usage_event")
    assert 0 < spent == 10 * CENT - await credit(bench, wallet)
    assert bench.gateway.lender.purse(wallet).held == 0
    await sound(bench)


async def test_a_project_with_a_wallet_pays_for_itself(bench: Any, prepaid: Any, chat: Body) -> None:
    ours = await prepaid(10 * CENT)
    wallet = await prepaid(10 * CENT, project=True)
    await bench.start_engine()
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
    row = await bench.event(answer.headers["x-request-id"])
    assert row["wallet_project_id"] == wallet.project_id
    assert await credit(bench, wallet) == 10 * CENT - row["cost_nano_usd"]
    assert await credit(bench, ours) == 10 * CENT


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("strict", [True, False])
async def test_without_credit_it_is_said_what_is_missing(
    bench: Any, prepaid: Any, chat: Body, stream: bool, strict: bool
) -> None:
    await prepaid(1_000, strict=strict)
    engine = await bench.start_engine()
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(stream=stream), headers=JSON)
    assert answer.status_code == 402
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_credit")
    assert error["available_usd"] == "0.000001"
    assert float(error["needed_usd"]) > 0.00005
    assert error["needed_usd"] in error["message"]
    assert await engine.made() == {}


async def test_openais_client_tells_that_credit_is_missing(bench: Any, prepaid: Any) -> None:
    await prepaid(1_000)
    await bench.start_engine()
    async with openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key=bench.key) as client:
        with pytest.raises(openai.APIStatusError, match="available") as caught:
            await client.chat.completions.create(
                model="penstock/demo-chat", messages=[{"role": "user", "content": "Hello"}]
            )
    assert (caught.value.status_code, caught.value.code) == (402, "insufficient_credit")


@pytest.mark.parametrize("n", [1, 3])
async def test_a_stream_ends_cleanly_when_its_credit_does(bench: Any, prepaid: Any, n: int) -> None:
    """OpenAI's own client reads the text, a finish reason, the count, and then why it ended."""
    wallet = await prepaid(n * 600 * OUTPUT)
    engine = await bench.start_engine(tokens_per_second=120, answer_tokens=10_000)
    text, reasons, usage = "", set(), None
    async with openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key=bench.key) as client:
        stream = await client.chat.completions.create(
            model="penstock/demo-chat",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=2000,
            n=n,
        )

        async def read() -> None:
            nonlocal text, usage
            async for chunk in stream:
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    reasons.add((choice.index, choice.finish_reason))

        with pytest.raises(openai.APIError, match="credit ended") as caught:
            await read()
    assert caught.value.code == "insufficient_credit"
    assert caught.value.type == "insufficient_quota"
    assert {(index, "length") for index in range(n)} <= reasons
    assert len(text) > 200
    [(request_id, made)] = (await engine.made()).items()
    row = await bench.event(request_id)
    assert row["outcome"] == "credit_ended"
    assert row["status"] == 200
    assert row["output_tokens"] == made["completion_tokens"] == usage.completion_tokens
    assert row["cost_nano_usd"] == row["input_tokens"] * INPUT + row["output_tokens"] * OUTPUT
    # Most of the credit was used, and little more: what was made between the last look and the abort.
    left = await credit(bench, wallet)
    assert -n * 256 * OUTPUT < left < n * 128 * OUTPUT
    assert left == n * 600 * OUTPUT - row["cost_nano_usd"]
    assert bench.gateway.lender.purse(wallet).held == 0
    await sound(bench)


async def test_a_completion_ends_as_cleanly(bench: Any, prepaid: Any) -> None:
    await prepaid(2 * 500 * OUTPUT)
    engine = await bench.start_engine(tokens_per_second=300, answer_tokens=10_000)
    finished: set[tuple[int, str]] = set()
    async with openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key=bench.key) as client:
        stream = await client.completions.create(
            model="penstock/demo-chat", prompt="Hello", n=2, stream=True, max_tokens=1500
        )

        async def read() -> None:
            async for chunk in stream:
                assert chunk.object == "text_completion"
                finished.update((each.index, each.finish_reason) for each in chunk.choices)

        with pytest.raises(openai.APIError, match="credit ended"):
            await read()
    assert {(0, "length"), (1, "length")} <= finished
    [(request_id, made)] = (await engine.made()).items()
    row = await bench.event(request_id)
    assert (row["outcome"], row["output_tokens"]) == ("credit_ended", made["completion_tokens"])


async def test_a_stream_runs_on_as_long_as_there_is_credit(bench: Any, prepaid: Any, chat: Body) -> None:
    wallet = await prepaid(100 * CENT)
    # Faster than anything: one read brings hundreds of tokens, which the lease must have been good for.
    await bench.start_engine()
    async with bench.client() as client:
        answer = await client.post(
            "/v1/chat/completions",
            content=chat(stream=True, max_tokens=2000, ignore_eos=True),
            headers=JSON,
        )
    assert answer.text.endswith("data: [DONE]\n\n")
    row = await bench.event(answer.headers["x-request-id"])
    assert (row["outcome"], row["output_tokens"]) == ("done", 2000)
    assert await credit(bench, wallet) == 100 * CENT - row["cost_nano_usd"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_strict_wallet_shortens_what_it_cannot_pay_for(
    bench: Any, prepaid: Any, chat: Body, stream: bool
) -> None:
    wallet = await prepaid(700 * INPUT + 100 * OUTPUT, strict=True)
    await bench.start_engine(answer_tokens=10_000)
    async with bench.client() as client:
        answer = await client.post(
            "/v1/chat/completions", content=chat(stream=stream, max_tokens=2000), headers=JSON
        )
    assert answer.status_code == 200
    most = int(answer.headers["x-penstock-max-tokens"])
    row = await bench.event(answer.headers["x-request-id"])
    assert row["outcome"] == "done"
    assert 100 <= row["output_tokens"] == most < 200
    assert '"finish_reason":"length"' in answer.text
    assert await credit(bench, wallet) >= 0
    await sound(bench)


async def test_strict_credit_never_goes_below_nothing(bench: Any, prepaid: Any, chat: Body) -> None:
    wallet = await prepaid(20_000 * OUTPUT, strict=True)
    await bench.start_engine(tokens_per_second=2000, answer_tokens=10_000)

    async def client_runs_dry(number: int) -> int:
        served = 0
        async with bench.client() as client:
            while True:
                body = chat(stream=number % 2 == 0, max_tokens=50 + 30 * number, n=1 + number % 3)
                answer = await client.post("/v1/chat/completions", content=body, headers=JSON)
                if answer.status_code == 402:
                    return served
                if answer.status_code == 429:
                    # What others may still cost is held: soon it is known.
                    assert answer.json()["error"]["code"] == "credit_held"
                    await asyncio.sleep(0.05)
                    continue
                assert answer.status_code == 200
                served += 1

    served = sum(await asyncio.gather(*(client_runs_dry(number) for number in range(8))))
    assert served > 10

    async def all_counted() -> bool | None:
        count = await bench.database.fetchval("select count(*) from billing.usage_event")
        return True if count == served else None

    await bench.until(all_counted)
    assert 0 <= await credit(bench, wallet) < 700 * INPUT + 3 * 16 * OUTPUT
    await sound(bench)


async def test_credit_that_comes_is_soon_there(bench: Any, prepaid: Any, chat: Body) -> None:
    await prepaid(0)
    await bench.start_engine()
    async with bench.client() as client:
        assert (await client.post("/v1/chat/completions", content=chat(), headers=JSON)).status_code == 402
        await prepaid(CENT)

        async def served() -> bool | None:
            answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
            return True if answer.status_code == 200 else None

        await bench.until(served)


async def test_what_another_gateway_holds_and_does_not_need_is_used(
    bench: Any, prepaid: Any, chat: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.admission.credit import lending
    from penstock.admission.credit.lending import Lender
    from penstock.admission.credit.wallets import Wallets

    # How long it takes on a busy machine is not the question here.
    monkeypatch.setattr(lending, "RECALL_WAIT_S", 30.0)
    monkeypatch.setattr(lending, "WAIT_S", 30.0)

    wallet = await prepaid(CENT)
    await bench.start_engine()
    other = Lender(bench.database, b"o" * 16, Wallets())
    running = asyncio.create_task(other.run())
    # All of it is leased there.
    held = await other.reserve(other.purse(wallet), 1000, 1000)
    assert other.purse(wallet).granted == CENT
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
    assert answer.status_code == 200
    assert other.purse(wallet).granted >= other.purse(wallet).held == held
    running.cancel()
    await other.drain(5)
    await sound(bench)


async def test_a_debt_limit_stops_a_postpaid_wallet(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    await bench.database.execute(
        "insert into billing.wallet (organisation_id, funding, owed_max_nano_usd)"
        " select id, 'postpaid', 1 from access.organisation"
    )
    await bench.gateway.wallets.refresh(bench.database)
    async with bench.client() as client:
        first = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
        second = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
    assert first.status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (402, "debt_limit_reached")


async def test_refused_and_failed_requests_leave_nothing_held(bench: Any, prepaid: Any, chat: Body) -> None:
    wallet = await prepaid(CENT)
    await bench.set_pool(wait_max_s=1)
    engine = await bench.start_engine(tokens_per_second=100)
    async with bench.client() as client:
        for fault in ({"cut_at_token": 3}, {"status": 503}, {"error_at_token": 2}):
            await engine.breaks(**fault)
            for stream in (True, False):
                await client.post("/v1/chat/completions", content=chat(stream=stream), headers=JSON)
        await engine.mend()
        async with client.stream(
            "POST", "/v1/chat/completions", content=chat(stream=True), headers=JSON
        ) as answer:
            await anext(answer.aiter_lines())
    await bench.event(answer.headers["x-request-id"])
    engine.process.kill()
    await engine.process.wait()
    async with bench.client() as client:
        await client.post("/v1/chat/completions", content=chat(), headers=JSON)
    purse = bench.gateway.lender.purse(wallet)
    assert (purse.held, purse.users) == (0, 0)


async def test_a_gateway_that_stops_gives_its_credit_back(bench: Any, prepaid: Any, chat: Body) -> None:
    wallet = await prepaid(10 * CENT)
    await bench.start_engine()
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
    row = await bench.event(answer.headers["x-request-id"])
    await bench.gateway.lender.drain(5)
    leased = await bench.database.fetch("select * from billing.lease where released_at is null")
    assert leased == []
    assert await credit(bench, wallet) == 10 * CENT - row["cost_nano_usd"]
    await sound(bench)
