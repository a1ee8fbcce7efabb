"""A client sees that its model sleeps or wakes, and for how long its request waited."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

from penstock_engines import pools

Body = Callable[..., bytes]
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
WAITING = {"x-penstock-waiting": "comments"}
COMMENTS = JSON | WAITING
MODEL = "penstock/demo-chat"


async def until_waiting(bench: Any) -> None:
    async def waits() -> bool | None:
        return True if bench.gateway.dispatcher.waiting(MODEL)[0] else None

    await bench.until(waits, 30)


async def first_line(lines: Any) -> str:
    async for line in lines:
        return str(line)
    raise AssertionError("the stream ended without a word")


async def stream_of(bench: Any, sdk: openai.AsyncOpenAI) -> Any:
    return await sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], stream=True, extra_headers=WAITING
    )


async def test_an_answer_says_how_long_it_waited_and_how_much_of_it_the_model_woke(
    bench: Any, chat: Body
) -> None:
    await bench.set_pool()
    async with bench.client() as client:
        began = time.monotonic()
        asked = [
            asyncio.create_task(client.post(CHAT, content=chat(stream=stream), headers=JSON))
            for stream in (True, False)
        ]
        await until_waiting(bench)
        await asyncio.sleep(0.3)
        await bench.start_engine()
        for answer in await asyncio.gather(*asked):
            assert answer.status_code == 200
            woke, queued = (int(answer.headers[f"x-penstock-{name}-ms"]) for name in ("wake", "queue"))
            assert 0 < woke <= queued <= (time.monotonic() - began) * 1000
        at_once = await client.post(CHAT, content=chat(), headers=JSON)
    assert "x-penstock-queue-ms" not in at_once.headers
    assert "x-penstock-wake-ms" not in at_once.headers


async def test_models_say_how_they_stand(bench: Any) -> None:
    await bench.set_pool()
    sdk = openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key=bench.key)

    async def state() -> tuple[Any, ...]:
        (listed,) = [model.model_dump() for model in (await sdk.models.list()).data]
        shown = (await sdk.models.retrieve(MODEL)).model_dump()
        assert listed["state"] == shown["state"]
        return shown["state"], shown["state_for_s"] is not None, shown["usual_wake_s"]

    assert await state() == ("asleep", False, None)
    engine = await bench.start_engine()
    assert (await state())[0] == "ready"
    await bench.set_state(engine, "starting")
    async with bench.database.acquire() as connection:
        timings = pools.StartTimings(process_s=0.5, listening_s=5.0, answer_s=6.25)
        await pools.note_start(connection, MODEL, 1, timings)
    await bench.gateway.directory.refresh(bench.database)
    assert (await state())[::2] == ("waking", 6.2)
    await bench.database.execute("delete from engines.replica")
    await bench.set_pool(scale={"replicas_min": 0, "replicas_max": 0})
    assert (await state())[0] == "off"
    await sdk.close()


async def test_a_stream_that_asked_for_it_is_told_while_it_waits(bench: Any, chat: Body) -> None:
    await bench.set_pool()
    async with (
        bench.client() as client,
        client.stream("POST", CHAT, content=chat(stream=True), headers=COMMENTS) as answer,
    ):
        lines = answer.aiter_lines()
        assert answer.status_code == 200
        assert re.fullmatch(r": waited \d+ s; the model is asleep", await first_line(lines))
        await bench.start_engine()
        rest = [line async for line in lines]
    assert rest[-2:] == ["data: [DONE]", ""]
    event = await bench.event(answer.headers["x-request-id"])
    assert (event["outcome"], event["status"], event["output_tokens"] > 0) == ("done", 200, True)


async def test_openais_client_reads_over_the_comments(bench: Any) -> None:
    await bench.set_pool()
    sdk = openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key=bench.key, max_retries=0)
    # The head is here, and the model sleeps: what brought the head is a comment.
    stream = await stream_of(bench, sdk)
    assert not bench.gateway.directory.has_ready(MODEL)
    await bench.start_engine()
    said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(said)
    await sdk.close()


async def test_what_goes_wrong_after_comments_is_an_event_with_the_same_words(bench: Any, chat: Body) -> None:
    await bench.set_pool(wait_max_s=3)
    async with bench.client() as client:
        answer = await client.post(CHAT, content=chat(stream=True), headers=COMMENTS)
        assert answer.status_code == 200
        assert answer.text.startswith(": waited")
        assert '"code":"model_not_ready"' in answer.text
        assert "[DONE]" not in answer.text
        # Who does not ask for comments gets the status.
        plain = await client.post(CHAT, content=chat(stream=True), headers=JSON)
        assert (plain.status_code, plain.json()["error"]["code"]) == (503, "model_not_ready")
        assert int(plain.headers["retry-after"]) >= 1
    sdk = openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key=bench.key, max_retries=0)
    stream = await stream_of(bench, sdk)
    with pytest.raises(openai.APIError, match="no engine of penstock/demo-chat became free"):
        async for _ in stream:
            pass
    await sdk.close()


@pytest.mark.parametrize(
    ("fault", "code", "recorded"),
    [
        ({"die_at_token": 1}, "engine_failed", True),
        ({"error_at_token": 1}, "engine_failed", True),
        ({"status": 400}, "invalid_value", False),
    ],
)
async def test_an_engine_that_fails_after_comments_is_told_as_an_event(
    bench: Any, chat: Body, fault: dict[str, int], code: str, recorded: bool
) -> None:
    await bench.set_pool()
    engine = await bench.start_engine()
    await engine.breaks(**fault)
    await bench.set_state(engine, "starting")
    async with (
        bench.client() as client,
        client.stream("POST", CHAT, content=chat(stream=True), headers=COMMENTS) as answer,
    ):
        lines = answer.aiter_lines()
        assert "the model is waking for" in await first_line(lines)
        await bench.set_state(engine, "ready")
        rest = "\n".join([line async for line in lines])
    assert f'"code":"{code}"' in rest
    assert "[DONE]" not in rest
    if recorded:
        event = await bench.event(answer.headers["x-request-id"])
        assert (event["outcome"], event["status"], event["cost_nano_usd"]) == ("engine_failed", 200, 0)


async def test_a_whole_answer_and_an_idempotent_one_are_not_begun_early(bench: Any, chat: Body) -> None:
    await bench.set_pool(wait_max_s=3)
    async with bench.client() as client:
        whole = await client.post(CHAT, content=chat(), headers=COMMENTS)
        key = COMMENTS | {"idempotency-key": "once"}
        kept = await client.post(CHAT, content=chat(stream=True), headers=key)
    assert (whole.status_code, kept.status_code) == (503, 503)


async def test_another_word_than_comments_is_refused(bench: Any, chat: Body) -> None:
    async with bench.client() as client:
        headers = JSON | {"x-penstock-waiting": "loudly"}
        answer = await client.post(CHAT, content=chat(stream=True), headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-penstock-waiting")
