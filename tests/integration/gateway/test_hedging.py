"""A stream whose engine is late is sent to a second one too: the quicker answers, the other is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.control import reconciling
from penstock_base import database as databases
from penstock_billing.reconcile.report import Report

JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
NEVER_MS = 60_000
Body = Callable[..., bytes]


async def ask(bench: Any, body: bytes) -> Any:
    async with bench.client() as client:
        return await client.post(CHAT, content=body, headers=JSON)


async def hedge(bench: Any, after_ms: int = 50) -> None:
    await bench.set_pool(policy="least_load", hedge_after_ms=after_ms)


async def is_over(bench: Any, engine: Any) -> str:
    """How the only request at an engine ended there, as soon as it has."""

    async def over() -> str | None:
        (tally,) = (await engine.made()).values()
        return tally["outcome"] if tally["outcome"] != "running" else None

    outcome: str = await bench.until(over)
    return outcome


async def charged_at(bench: Any, request_id: str, engine: Any) -> Any:
    row = await bench.event(request_id)
    made = (await engine.made())[request_id]
    assert row["replica"] == engine.name
    assert (row["input_tokens"], row["output_tokens"]) == (made["prompt_tokens"], made["completion_tokens"])
    assert row["cost_nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400
    return row


async def reconcile(bench: Any, database_url: str) -> Report:
    connection = await databases.connect(database_url, "test")
    try:
        return await reconciling.reconcile(
            connection,
            journal_folder=bench.gateway.journal.folder,
            engines={engine.name: engine.socket for engine in bench.engines},
            until=datetime.now(UTC) + timedelta(minutes=1),
        )
    finally:
        await connection.close()


def idle(bench: Any) -> bool:
    """Whether every place at every engine was given back."""
    return all(one.in_flight == 0 and one.load == 0 for one in bench.gateway.directory.all_targets())


async def test_the_quicker_engine_answers_and_the_other_is_stopped_and_free(
    bench: Any, chat: Body, database_url: str
) -> None:
    await hedge(bench)
    late, quick = await bench.start_engine("a", first_token_ms=NEVER_MS), await bench.start_engine("b")
    answer = await ask(bench, chat(stream=True))
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    assert await is_over(bench, late) == "aborted"
    request_id = answer.headers["x-request-id"]
    row = await charged_at(bench, request_id, quick)
    assert (row["outcome"], row["hedged"], row["retries"]) == ("done", True, 0)
    assert idle(bench)
    report = await reconcile(bench, database_url)
    assert report.differences == []
    (free,) = report.unbilled
    assert free.request_id == request_id
    assert free.reason.startswith("hedged: ")
    assert free.input_tokens == (await late.made())[request_id]["prompt_tokens"] > 0


async def test_a_first_engine_that_answers_first_after_all_is_charged(
    bench: Any, chat: Body, database_url: str
) -> None:
    await hedge(bench)
    first = await bench.start_engine("a", first_token_ms=1500)
    second = await bench.start_engine("b", first_token_ms=NEVER_MS)
    answer = await ask(bench, chat(stream=True))
    row = await charged_at(bench, answer.headers["x-request-id"], first)
    assert (row["outcome"], row["hedged"]) == ("done", True)
    assert await is_over(bench, second) == "aborted"
    assert (await reconcile(bench, database_url)).differences == []


@pytest.mark.parametrize("stream", [True, False], ids=["a quick stream", "a whole answer"])
async def test_what_is_not_late_and_whole_answers_are_not_hedged(
    bench: Any, chat: Body, stream: bool
) -> None:
    await hedge(bench, after_ms=20_000 if stream else 1)
    first = await bench.start_engine("a", first_token_ms=200)
    second = await bench.start_engine("b")
    answer = await ask(bench, chat(stream=stream))
    row = await charged_at(bench, answer.headers["x-request-id"], first)
    assert not row["hedged"]
    assert await second.made() == {}


async def test_it_is_off_unless_a_pool_wants_it(bench: Any, chat: Body) -> None:
    await bench.set_pool(policy="least_load")
    await bench.start_engine("a", first_token_ms=500)
    second = await bench.start_engine("b")
    assert (await ask(bench, chat(stream=True))).status_code == 200
    assert await second.made() == {}


async def test_without_room_elsewhere_it_waits(bench: Any, chat: Body) -> None:
    await hedge(bench)
    first = await bench.start_engine("a", first_token_ms=500)
    answer = await ask(bench, chat(stream=True))
    row = await charged_at(bench, answer.headers["x-request-id"], first)
    assert not row["hedged"]


async def test_few_requests_are_hedged(bench: Any, chat: Body) -> None:
    await hedge(bench)
    await bench.start_engine("a", first_token_ms=300)
    await bench.start_engine("b", first_token_ms=300)
    answers = await asyncio.gather(*(ask(bench, chat(stream=True)) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    rows = [await bench.event(answer.headers["x-request-id"]) for answer in answers]
    assert sum(row["hedged"] for row in rows) == 1


@pytest.mark.parametrize("status", [503, 500])
async def test_a_second_engine_that_refuses_leaves_the_first_to_answer(
    bench: Any, chat: Body, status: int
) -> None:
    await hedge(bench)
    first, second = await bench.start_engine("a", first_token_ms=1500), await bench.start_engine("b")
    await second.breaks(status=status)
    answer = await ask(bench, chat(stream=True))
    assert answer.status_code == 200
    await charged_at(bench, answer.headers["x-request-id"], first)
    assert idle(bench)


@pytest.mark.parametrize("dies", ["a", "b"])
async def test_of_two_engines_the_one_that_lives_answers(bench: Any, chat: Body, dies: str) -> None:
    await hedge(bench)
    engines = {
        name: await bench.start_engine(name, first_token_ms=NEVER_MS if name == dies else 1500)
        for name in ("a", "b")
    }
    second = engines["b"]
    asked = asyncio.create_task(ask(bench, chat(stream=True)))

    async def at_both() -> bool | None:
        return True if await second.made() else None

    await bench.until(at_both)
    engines.pop(dies).process.kill()
    answer = await asked
    assert answer.status_code == 200
    (lives,) = engines.values()
    row = await charged_at(bench, answer.headers["x-request-id"], lives)
    assert (row["hedged"], row["retries"]) == (True, 0)


async def test_who_leaves_meanwhile_stops_both_and_pays_one(
    bench: Any, chat: Body, database_url: str
) -> None:
    await hedge(bench)
    first = await bench.start_engine("a", first_token_ms=NEVER_MS)
    second = await bench.start_engine("b", first_token_ms=NEVER_MS)
    asked = asyncio.create_task(ask(bench, chat(stream=True)))

    async def at_both() -> bool | None:
        return True if await second.made() else None

    await bench.until(at_both)
    asked.cancel()
    assert [await is_over(bench, engine) for engine in (first, second)] == ["aborted", "aborted"]
    (request_id,) = await first.made()
    row = await charged_at(bench, request_id, first)
    assert row["outcome"] == "client_gone"
    assert (await reconcile(bench, database_url)).differences == []
    assert idle(bench)


async def test_shutting_down_during_it_is_free_and_leaves_nothing_at_either(bench: Any, chat: Body) -> None:
    await hedge(bench)
    first = await bench.start_engine("a", first_token_ms=NEVER_MS)
    second = await bench.start_engine("b", first_token_ms=NEVER_MS)
    asked = asyncio.create_task(ask(bench, chat(stream=True)))

    async def at_both() -> bool | None:
        return True if await second.made() else None

    await bench.until(at_both)
    bench.server.should_exit = True
    await asyncio.gather(asked, return_exceptions=True)
    assert [await is_over(bench, engine) for engine in (first, second)] == ["aborted", "aborted"]
    (request_id,) = await first.made()
    row = await bench.event(request_id)
    assert (row["outcome"], row["cost_nano_usd"]) == ("shutdown", 0)
