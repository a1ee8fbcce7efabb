"""A request that an engine fails before its client has a byte is tried elsewhere, and charged once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from penstock.routing.breaker import FAILURES_MAX

JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
Body = Callable[..., bytes]

both = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def breaker_of(bench: Any, engine: Any) -> Any:
    (found,) = [one for one in bench.gateway.directory.all_targets() if one.id == engine.name]
    return found.breaker


@pytest.fixture
async def pair(bench: Any) -> tuple[Any, Any]:
    """Two engines; with equal load, requests go to the first."""
    await bench.set_pool(policy="least_load")
    return await bench.start_engine("a"), await bench.start_engine("b")


async def charged_as(bench: Any, answer: Any, engine: Any, retries: int) -> None:
    row = await bench.event(answer.headers["x-request-id"])
    made = (await engine.made())[row["request_id"]]
    assert (row["outcome"], row["replica"], row["retries"]) == ("done", engine.name, retries)
    assert row["output_tokens"] == made["completion_tokens"] > 0
    assert row["cost_nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400


@both
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_an_engine_that_refuses_for_reasons_of_its_own_is_passed_over(
    bench: Any, pair: tuple[Any, Any], chat: Body, stream: bool, status: int
) -> None:
    refusing, other = pair
    await refusing.breaks(status=status)
    async with bench.client() as client:
        answer = await client.post(CHAT, content=chat(stream=stream), headers=JSON)
        assert answer.status_code == 200
        await charged_as(bench, answer, other, 1)
        assert await refusing.made() == {}
        breaker = breaker_of(bench, refusing)
        for _ in range(FAILURES_MAX - 1):
            assert not breaker.opened
            assert (await client.post(CHAT, content=chat(stream=stream), headers=JSON)).status_code == 200
        assert breaker.opened
        await refusing.mend()
        answer = await client.post(CHAT, content=chat(stream=stream), headers=JSON)
        await charged_as(bench, answer, other, 0)


async def test_an_engine_that_finds_fault_with_the_request_is_believed(
    bench: Any, pair: tuple[Any, Any], chat: Body
) -> None:
    first, second = pair
    await first.breaks(status=400)
    async with bench.client() as client:
        answers = [await client.post(CHAT, content=chat(), headers=JSON) for _ in range(4)]
    assert {answer.status_code for answer in answers} == {400}
    assert await second.made() == {}
    assert not breaker_of(bench, first).opened


async def test_a_request_that_fails_everywhere_takes_no_engine_from_others(
    bench: Any, pair: tuple[Any, Any], chat: Body
) -> None:
    for engine in pair:
        await engine.breaks(error_at_token=3)
    async with bench.client() as client:
        answers = [await client.post(CHAT, content=chat(), headers=JSON) for _ in range(FAILURES_MAX + 1)]
    assert {answer.status_code for answer in answers} == {502}
    assert not any(breaker_of(bench, engine).opened for engine in pair)
    for answer in answers:
        row = await bench.event(answer.headers["x-request-id"])
        assert (row["outcome"], row["cost_nano_usd"], row["retries"]) == ("engine_failed", 0, 1)
    assert [len(await engine.made()) for engine in pair] == [FAILURES_MAX + 1] * 2


async def test_a_connection_that_closes_without_an_answer_is_no_answer(
    bench: Any, pair: tuple[Any, Any], chat: Body
) -> None:
    closing, other = pair
    await closing.breaks(cut_at_token=2)
    async with bench.client() as client:
        answer = await client.post(CHAT, content=chat(), headers=JSON)
    assert answer.status_code == 200
    await charged_as(bench, answer, other, 1)


@contextlib.asynccontextmanager
async def in_hand(bench: Any, engine: Any, body: bytes, count: int = 1) -> AsyncIterator[Any]:
    """Requests that an engine has and has not answered."""
    async with bench.client() as client:
        asked = [asyncio.create_task(client.post(CHAT, content=body, headers=JSON)) for _ in range(count)]

        async def taken() -> bool | None:
            return True if len(await engine.made()) == count else None

        await bench.until(taken)
        yield asyncio.gather(*asked)


@both
async def test_what_a_killed_engine_had_not_begun_to_answer_is_answered_by_another(
    bench: Any, chat: Body, stream: bool
) -> None:
    await bench.set_pool(policy="least_load")
    killed = await bench.start_engine("a", first_token_ms=60_000)
    async with in_hand(bench, killed, chat(stream=stream), 5) as asked:
        other = await bench.start_engine("b")
        killed.process.kill()
        for answer in await asked:
            assert answer.status_code == 200
            await charged_as(bench, answer, other, 1)


@both
async def test_without_another_engine_it_waits_for_one(bench: Any, chat: Body, stream: bool) -> None:
    await bench.set_pool(policy="least_load")
    killed = await bench.start_engine("a", first_token_ms=60_000)
    async with in_hand(bench, killed, chat(stream=stream), 5) as asked:
        killed.process.kill()
        await killed.process.wait()
        await bench.set_state(killed, "starting")

        async def waits() -> bool | None:
            return True if bench.gateway.dispatcher.waiting("penstock/demo-chat")[0] == 5 else None

        await bench.until(waits)
        other = await bench.start_engine("b")
        for answer in await asked:
            assert answer.status_code == 200
            row = await bench.event(answer.headers["x-request-id"])
            assert (row["outcome"], row["replica"]) == ("done", "b")
            assert row["wait_us"] > 0
    assert len(await other.made()) == 5


async def test_without_another_engine_in_time_it_fails_for_free(bench: Any, chat: Body) -> None:
    await bench.set_pool(policy="least_load", wait_max_s=1)
    killed = await bench.start_engine("a", first_token_ms=60_000)
    async with in_hand(bench, killed, chat(stream=True)) as asked:
        killed.process.kill()
        (answer,) = await asked
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_failed")
    row = await bench.event(answer.headers["x-request-id"])
    assert (row["outcome"], row["cost_nano_usd"]) == ("engine_failed", 0)


async def test_what_has_begun_is_not_begun_again(bench: Any, pair: tuple[Any, Any], chat: Body) -> None:
    breaking, other = pair
    await breaking.breaks(cut_at_token=5)
    async with bench.client() as client:
        answer = await client.post(CHAT, content=chat(stream=True), headers=JSON)
    assert "engine_failed" in answer.text
    assert await other.made() == {}
