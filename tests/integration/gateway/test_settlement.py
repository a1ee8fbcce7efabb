"""Every way a request can end: what the client sees, what is billed, and that the three counts agree."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from penstock_billing import invariants

JSON = {"content-type": "application/json"}
Body = Callable[..., bytes]


def events(text: str) -> list[str]:
    return [part.removeprefix("data: ") for part in text.split("\n\n") if part]


@pytest.mark.parametrize("options", [{}, {"n": 3}, {"max_tokens": 1}])
async def test_a_stream_bills_what_the_engine_made(bench: Any, chat: Body, options: dict[str, Any]) -> None:
    engine = await bench.start_engine()
    body = chat(stream=True, stream_options={"include_usage": True}, **options)
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=body, headers=JSON)
    *_, usage, done = events(answer.text)
    assert done == "[DONE]"
    row = await bench.event(answer.headers["x-request-id"])
    [made] = (await engine.made()).values()
    assert (
        row["output_tokens"] == json.loads(usage)["usage"]["completion_tokens"] == made["completion_tokens"]
    )
    assert row["outcome"] == "done"
    assert row["cost_nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400


async def test_a_whole_answer_bills_what_the_engine_made(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine()
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(n=2), headers=JSON)
    row = await bench.event(answer.headers["x-request-id"])
    [made] = (await engine.made()).values()
    assert row["output_tokens"] == answer.json()["usage"]["completion_tokens"] == made["completion_tokens"]


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 8, 13, 19])
async def test_a_client_gone_at_any_token_pays_exactly_what_was_made(
    bench: Any, chat: Body, cut: int
) -> None:
    engine = await bench.start_engine(tokens_per_second=200, answer_tokens=1000)
    async with (
        bench.client() as client,
        client.stream("POST", "/v1/chat/completions", content=chat(stream=True), headers=JSON) as answer,
    ):
        lines = answer.aiter_lines()
        seen = 0
        while seen <= cut:
            seen += (await anext(lines)).startswith("data: ")
    row = await bench.event(answer.headers["x-request-id"])
    [made] = (await engine.made()).values()
    assert row["output_tokens"] == made["completion_tokens"] >= cut
    assert row["outcome"] == ("client_gone" if row["output_tokens"] < 20 else row["outcome"])
    assert row["cost_nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400


async def test_a_client_that_resets_before_a_whole_answer_pays_what_was_made(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine(tokens_per_second=50, answer_tokens=1000)
    body = chat(max_tokens=500)
    _, writer = await asyncio.open_connection(*bench.url.removeprefix("http://").split(":"))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-client-request-id: reset\r\n"
        b"content-type: application/json\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (bench.key.encode(), len(body), body)
    )
    await asyncio.sleep(0.3)
    handle = writer.get_extra_info("socket")
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
    row = await bench.event_by_client("reset")
    [made] = (await engine.made()).values()
    assert row["outcome"] == "client_gone"
    assert 0 < row["output_tokens"] == made["completion_tokens"] < 500


@pytest.mark.parametrize("fault", ["die_at_token", "cut_at_token", "error_at_token"])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_fails_costs_nothing_and_is_said(
    bench: Any, chat: Body, fault: str, stream: bool
) -> None:
    # Paced, so that the first tokens have left before it fails.
    engine = await bench.start_engine(tokens_per_second=100)
    await engine.breaks(**{fault: 5})
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(stream=stream), headers=JSON)
    if stream:
        assert answer.status_code == 200
        last = json.loads(events(answer.text)[-1])
        assert last["error"]["code"] == "engine_failed"
        assert "[DONE]" not in answer.text
    else:
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "engine_failed"
    if not (fault == "error_at_token" and not stream):  # refused with 500 before any work was accepted
        row = await bench.event(answer.headers["x-request-id"])
        assert (row["outcome"], row["cost_nano_usd"]) == ("engine_failed", 0)


async def test_an_engine_that_hangs_is_given_up_and_costs_nothing(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine()
    await engine.breaks(hang_at_token=4)
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(stream=True), headers=JSON)
    assert json.loads(events(answer.text)[-1])["error"]
    row = await bench.event(answer.headers["x-request-id"])
    assert (row["outcome"], row["cost_nano_usd"]) == ("stalled", 0)


async def test_an_engine_that_is_gone_is_passed_over_for_another(bench: Any, chat: Body) -> None:
    dead = await bench.start_engine("a")
    await bench.start_engine("b")
    dead.process.kill()
    await dead.process.wait()
    async with bench.client() as client:
        events = []
        for _ in range(4):
            answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
            assert answer.status_code == 200
            events.append(await bench.event(answer.headers["x-request-id"]))
    assert {event["replica"] for event in events} == {"b"}
    # Of one conversation, so the dead one was asked first until it was left alone.
    assert {event["retries"] for event in events} <= {0, 1}
    assert {event["candidates"] for event in events if event["retries"]} <= {1}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_counts_nothing_is_not_believed(bench: Any, chat: Body, stream: bool) -> None:
    engine = await bench.start_engine()
    await engine.breaks(without_usage=True)
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(stream=stream), headers=JSON)
    row = await bench.event(answer.headers["x-request-id"])
    assert (row["outcome"], row["cost_nano_usd"]) == ("engine_failed", 0)
    assert "[DONE]" not in answer.text


async def test_a_full_queue_is_said_at_once(bench: Any, chat: Body) -> None:
    await bench.set_pool(waiting_max=2)
    await bench.start_engine(batch_max=1, tokens_per_second=20, answer_tokens=20)
    async with bench.client() as client:
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", content=chat(), headers=JSON) for _ in range(5))
        )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 200, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"].isdigit()
    assert refused.json()["error"]["code"] == "queue_full"
    assert "1 requests of yours and 1 in all wait" in refused.json()["error"]["message"]


async def test_without_an_engine_in_time_the_state_is_said(bench: Any, chat: Body) -> None:
    await bench.set_pool(wait_max_s=1)
    engine = await bench.start_engine()
    await bench.set_state(engine, "starting")
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_not_ready"
    assert "waking for" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"].isdigit()


@pytest.mark.parametrize("stream", [True, False])
async def test_what_cannot_be_recorded_is_not_completed(
    bench: Any, chat: Body, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock_billing.errors import JournalFull

    await bench.start_engine()

    def full(_: object) -> None:
        raise JournalFull("no room")

    monkeypatch.setattr(bench.gateway.journal, "append", full)
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(stream=stream), headers=JSON)
    assert "[DONE]" not in answer.text
    if stream:
        assert json.loads(events(answer.text)[-1])["error"]
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "metering_unavailable")
    # So that reconciling knows why an engine worked for nobody.
    noted = await bench.until(lambda: bench.database.fetchrow("select * from billing.unrecorded_request"), 30)
    assert (noted["request_id"], noted["reason"]) == (answer.headers["x-request-id"], "JournalFull")


async def test_the_record_is_in_the_journal_before_the_last_byte_leaves(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    append = bench.gateway.journal.append
    order: list[str] = []
    holding = asyncio.Event()

    def slow(record: object) -> None:
        order.append("journal")
        append(record)
        holding.set()

    bench.gateway.journal.append = slow
    async with (
        bench.client() as client,
        client.stream("POST", "/v1/chat/completions", content=chat(stream=True), headers=JSON) as answer,
    ):
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                order.append("done" if holding.is_set() else "too early")
    assert order == ["journal", "done"]


async def test_a_slow_reader_holds_its_engine_back_and_pays_what_was_made(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine(context_length=2_000_000, answer_tokens=100_000)
    body = chat(stream=True, max_tokens=2000, n=8)
    handle = socket.socket()
    # Small buffers, so that not the kernel but the gateway has to hold the engine back.
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = bench.url.removeprefix("http://").split(":")
    handle.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=handle, limit=1024)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-client-request-id: slow\r\n"
        b"content-type: application/json\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (bench.key.encode(), len(body), body)
    )
    await reader.readuntil(b"\r\n\r\n")
    row = await bench.event_by_client(
        "slow"
    )  # it reads nothing more, so after the patience it counts as gone
    assert row["outcome"] == "client_gone"
    [made] = (await engine.made()).values()
    assert row["output_tokens"] == made["completion_tokens"] < 16_000
    writer.transport.abort()


async def test_shutting_down_lets_answers_finish_and_cuts_the_rest_for_free(bench: Any, chat: Body) -> None:
    await bench.start_engine(tokens_per_second=40, answer_tokens=5000)
    async with bench.client() as client:

        async def ask(name: str, tokens: int) -> str:
            headers = JSON | {"x-client-request-id": name}
            body = chat(stream=True, max_tokens=tokens)
            try:
                return (await client.post("/v1/chat/completions", content=body, headers=headers)).text
            except Exception as error:  # noqa: BLE001 - how a cut connection shows is the client's affair
                return str(error)

        short = asyncio.create_task(ask("short", 20))
        long = asyncio.create_task(ask("long", 2000))
        await asyncio.sleep(0.2)
        bench.server.should_exit = True
        assert "[DONE]" in await short
        assert "[DONE]" not in await long
    assert (await bench.event_by_client("short"))["outcome"] == "done"
    cut = await bench.event_by_client("long")
    assert (cut["outcome"], cut["cost_nano_usd"]) == ("shutdown", 0)


async def test_many_at_once_agree_with_the_engines_oracle(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine(tokens_per_second=2000)
    async with bench.client() as client:

        async def one(number: int) -> None:
            body = chat(stream=number % 2 == 0, n=1 + number % 3, max_tokens=1 + number)
            answer = await client.post("/v1/chat/completions", content=body, headers=JSON)
            assert answer.status_code == 200

        await asyncio.gather(*(one(number) for number in range(60)))
    made = await engine.made()
    assert len(made) == 60

    async def all_there() -> bool | None:
        count = await bench.database.fetchval("select count(*) from billing.usage_event")
        return True if count == 60 else None

    await bench.until(all_there)
    rows = await bench.database.fetch("select request_id, output_tokens from billing.usage_event")
    assert {r["request_id"]: r["output_tokens"] for r in rows} == {
        request: count["completion_tokens"] for request, count in made.items()
    }
    async with bench.database.acquire() as connection:
        assert await invariants.check(connection) == []
