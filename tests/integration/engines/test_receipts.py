"""What the engine says a request used is what it made, also when the client left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from penstock_engines import counters, receipt_log

pytestmark = pytest.mark.engine

LONG = {"n": 8, "max_tokens": 1900, "ignore_eos": True, "temperature": 1}
LONG_TOKENS = 8 * 1900
"""Seconds of work even for a tiny model, so that a busy machine's client still leaves before the end."""
USAGE = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def chat(**more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "Hello, who are you?"}
    return {"model": "penstock/demo-chat", "messages": [message], **more}


async def receipt(client: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    response = await client.get(f"/penstock/receipts/{request_id}")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def cut_after(client: httpx.AsyncClient, request_id: str, body: dict[str, Any], events: int) -> int:
    """Stream, leave after so many events; the completion tokens that the last one told."""
    told = 0
    headers = {"X-Request-Id": request_id}
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    async with client.stream("POST", path, json=body, headers=headers) as response:
        seen = 0
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                told = json.loads(line[6:])["usage"]["completion_tokens"]
                seen += 1
                if seen == events:
                    break
    return told


@pytest.mark.parametrize("events", [9, 16, 40])
async def test_a_stream_that_is_cut_is_counted_as_the_engine_counted_it(
    chat_engine: Any, events: int
) -> None:
    before = await chat_engine.figures()
    async with chat_engine.client() as client:
        told = await cut_after(client, f"cut-{events}", chat(**LONG, **USAGE), events)
        got = await receipt(client, f"cut-{events}")
        alone = await client.post("/v1/chat/completions", json=chat(max_tokens=1))
    after = await chat_engine.figures()
    assert got["finished"]
    assert got["aborted"]
    assert got["completion_tokens"] == after.generation_tokens - before.generation_tokens - 1
    assert told <= got["completion_tokens"] < LONG_TOKENS
    # The prompt counts once, however many choices were made of it.
    assert got["prompt_tokens"] == alone.json()["usage"]["prompt_tokens"]


async def test_a_whole_answer_that_is_not_awaited_is_counted_too(chat_engine: Any) -> None:
    before = await chat_engine.figures()
    async with chat_engine.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                "/v1/chat/completions", json=chat(**LONG), headers={"X-Request-Id": "left"}, timeout=0.5
            )
        got = await receipt(client, "left")
    after = await chat_engine.figures()
    assert (got["finished"], got["aborted"]) == (True, True)
    assert 0 < got["completion_tokens"] < LONG_TOKENS
    assert got["completion_tokens"] == after.generation_tokens - before.generation_tokens


async def test_one_choice_that_is_cut_is_counted_too(chat_engine: Any) -> None:
    before = await chat_engine.figures()
    async with chat_engine.client() as client:
        await cut_after(client, "single", chat(**LONG | {"n": 1}, **USAGE), 2)
        got = await receipt(client, "single")
    after = await chat_engine.figures()
    assert got["finished"]
    assert got["completion_tokens"] == after.generation_tokens - before.generation_tokens
    assert got["prompt_tokens"] == after.prompt_tokens - before.prompt_tokens


async def test_a_finished_request_has_the_receipt_its_usage_says(chat_engine: Any) -> None:
    async with chat_engine.client() as client:
        bodies = {
            "one": ("/v1/chat/completions", chat(max_tokens=5)),
            "three": ("/v1/chat/completions", chat(max_tokens=5, n=3, temperature=1)),
            "stopped": ("/v1/chat/completions", chat(max_tokens=50, stop=["Penstock"])),
            "prompts": (
                "/v1/completions",
                {"model": "penstock/demo-chat", "prompt": ["Hello there", "Good"], "max_tokens": 4},
            ),
        }
        for name, (path, body) in bodies.items():
            usage = (await client.post(path, json=body, headers={"X-Request-Id": name})).json()["usage"]
            got = await receipt(client, name)
            assert (got["finished"], got["aborted"]) == (True, False)
            assert got["prompt_tokens"] == usage["prompt_tokens"], name
            assert got["completion_tokens"] == usage["completion_tokens"], name


async def test_cached_prompt_tokens_are_told_although_the_stream_never_did(chat_engine: Any) -> None:
    prompt = "what is a penstock and how does it work " * 20
    body = {"model": "penstock/demo-chat", "prompt": prompt, **LONG, **USAGE, "max_tokens": 1000}
    async with chat_engine.client() as client:
        await cut_after(client, "first", body, 9)
        await cut_after(client, "second", body, 9)
        first, second = await receipt(client, "first"), await receipt(client, "second")
    # The CPU engine caches blocks of 128 tokens.
    assert first["cached_tokens"] == 0
    assert second["cached_tokens"] == second["prompt_tokens"] // 128 * 128 > 0


async def test_embeddings_have_receipts(embed_engine: Any) -> None:
    body = {"model": "penstock/demo-embed", "input": ["Hello", "how are you"]}
    async with embed_engine.client() as client:
        answer = await client.post("/v1/embeddings", json=body, headers={"X-Request-Id": "vectors"})
        got = await receipt(client, "vectors")
    assert got["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert got["completion_tokens"] == 0


async def test_a_refused_request_used_nothing_and_an_unknown_one_is_not_found(chat_engine: Any) -> None:
    async with chat_engine.client() as client:
        refused = await client.post(
            "/v1/chat/completions", json=chat(max_tokens=5000), headers={"X-Request-Id": "refused"}
        )
        assert refused.status_code == 400
        got = await receipt(client, "refused")
        assert (got["prompt_tokens"], got["completion_tokens"], got["finished"]) == (0, 0, True)
        assert (await client.get("/penstock/receipts/never-seen")).status_code == 404


async def test_a_running_request_is_told_as_running(chat_engine: Any) -> None:
    headers = {"X-Request-Id": "running"}
    async with (
        chat_engine.client() as client,
        client.stream("POST", "/v1/chat/completions", json=chat(**LONG, **USAGE), headers=headers) as stream,
    ):
        lines = stream.aiter_lines()
        await anext(lines)
        response = await client.get("/penstock/receipts/running?wait_ms=0")
        assert response.json()["finished"] is False


async def test_sixteen_streams_cut_at_once_add_up(chat_engine: Any) -> None:
    before = await chat_engine.figures()
    async with chat_engine.client() as client:
        await asyncio.gather(
            *(cut_after(client, f"at-{n}", chat(**LONG | {"n": 1}, **USAGE), 3 + n) for n in range(16))
        )
        receipts = [await receipt(client, f"at-{n}") for n in range(16)]
    after = await chat_engine.figures()
    made = sum(one["completion_tokens"] for one in receipts)
    assert made == after.generation_tokens - before.generation_tokens


async def test_the_engine_s_own_totals_are_the_sums_of_the_receipts_it_wrote_down(chat_engine: Any) -> None:
    async with chat_engine.client() as client:
        path, three = "/v1/chat/completions", chat(max_tokens=5, n=3, temperature=1)
        usage = (await client.post(path, json=three, headers={"X-Request-Id": "kept-three"})).json()["usage"]
        await client.post(
            path, json=chat(max_tokens=50, stop=["Penstock"]), headers={"X-Request-Id": "kept-stop"}
        )
        await cut_after(client, "kept-cut", chat(**LONG, **USAGE), 9)
        cut = await receipt(client, "kept-cut")
        # As its keeper asks: without an id.
        await client.post(path, json=chat(max_tokens=1))
    async with asyncio.timeout(30):
        while (sample := await counters.sample(chat_engine.socket)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    (boot,) = [one for one in receipt_log.boots(chat_engine.socket) if one.boot == sample.boot]
    assert boot.sums(sample.receipts) == (sample.input_tokens, sample.cached_tokens, sample.output_tokens)
    lines = {line.request_id: line for line in boot.lines()}
    one = lines["kept-three"]
    assert (one.input_tokens, one.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert one.all_input_tokens == 3 * usage["prompt_tokens"]
    assert (lines["kept-cut"].output_tokens, lines["kept-cut"].aborted) == (cut["completion_tokens"], True)


async def test_the_engine_s_log_has_no_word_of_a_prompt(chat_engine: Any) -> None:
    async with chat_engine.client() as client:
        for body in (
            chat(max_tokens=2) | {"messages": [{"role": "user", "content": "canary-7f3a bird"}]},
            chat(max_tokens=5000) | {"messages": [{"role": "user", "content": "canary-7f3a bird"}]},
            chat(n="canary-7f3a"),
        ):
            await client.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "canary"})
    log = chat_engine.log.read_text()
    assert "Starting vLLM server" in log
    assert "canary" not in log
