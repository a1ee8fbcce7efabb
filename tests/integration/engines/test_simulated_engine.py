"""The simulated engine keeps vLLM's promises, and its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello, who are you?"}], "temperature": 1}
TEXT: dict[str, Any] = {"prompt": "Hello, who", "temperature": 1}
EVERY = {"include_usage": True, "continuous_usage_stats": True}

SAME: list[tuple[str, str, dict[str, Any]]] = [
    ("chat", "/v1/chat/completions", CHAT | {"max_tokens": 3}),
    ("chat, choices", "/v1/chat/completions", CHAT | {"max_tokens": 3, "n": 2}),
    ("text", "/v1/completions", TEXT | {"max_tokens": 3}),
    ("text, choices", "/v1/completions", TEXT | {"max_tokens": 3, "n": 2}),
    ("unknown model", "/v1/chat/completions", CHAT | {"model": "other"}),
    ("too long", "/v1/chat/completions", CHAT | {"max_tokens": 10**9}),
]
STREAMS = [
    ("plain", {}),
    ("usage at the end", {"stream_options": {"include_usage": True}}),
    ("usage everywhere", {"stream_options": EVERY}),
    ("choices", {"stream_options": EVERY, "n": 2}),
]


def shape(value: Any) -> Any:
    """Keys, types and order, without the values: a list is the set of what is in it."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [json.loads(text) for text in sorted({json.dumps(shape(inner)) for inner in value})]
    return type(value).__name__


def events(raw: bytes) -> list[Any]:
    """Every distinct shape of a stream's events in the order of first appearance, keys in order.

    A real token may have no text of its own: its event lacks the content and is like the others otherwise.
    """
    seen: list[Any] = []
    for event in raw.decode().split("\n\n"):
        data = event.removeprefix("data: ")
        what = json.dumps(shape(json.loads(data))) if data.startswith("{") else data
        what = what.replace('"delta": {}', '"delta": {"content": "str"}')
        if what not in seen:
            seen.append(what)
    return seen


async def ask(engine: Any, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    async with engine.client() as client:
        return await client.post(path, json={"model": engine.spec.model} | body, headers=headers)


def headers_of(response: httpx.Response) -> list[tuple[str, str]]:
    return [(name, value if name != "content-length" else "") for name, value in response.headers.items()][1:]


@pytest.mark.engine
@pytest.mark.parametrize(("path", "body"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
async def test_whole_answers_have_the_shape_of_vllm_s(
    chat_engine: Any, simulated: Any, path: str, body: dict[str, Any]
) -> None:
    real, ours = await ask(chat_engine, path, body), await ask(simulated, path, body)
    assert ours.status_code == real.status_code
    assert json.dumps(shape(ours.json())) == json.dumps(shape(real.json()))
    assert headers_of(ours) == headers_of(real)


@pytest.mark.engine
@pytest.mark.parametrize("route", [("/v1/chat/completions", CHAT), ("/v1/completions", TEXT)])
@pytest.mark.parametrize("more", [case[1] for case in STREAMS], ids=[case[0] for case in STREAMS])
async def test_streams_have_the_shape_of_vllm_s(
    chat_engine: Any, simulated: Any, route: tuple[str, dict[str, Any]], more: dict[str, Any]
) -> None:
    path, body = route
    body = body | more | {"stream": True, "max_tokens": 12, "ignore_eos": True}
    real, ours = await ask(chat_engine, path, body), await ask(simulated, path, body)
    assert events(ours.content) == events(real.content)
    assert headers_of(ours) == headers_of(real)


@pytest.mark.engine
async def test_embeddings_have_the_shape_of_vllm_s(embed_engine: Any, simulated: Any) -> None:
    body = {"input": ["Hello", "how are you"]}
    real, ours = await ask(embed_engine, "/v1/embeddings", body), await ask(simulated, "/v1/embeddings", body)
    assert json.dumps(shape(ours.json())) == json.dumps(shape(real.json()))


@pytest.mark.engine
async def test_figures_and_receipts_have_the_shape_of_vllm_s(chat_engine: Any, simulated: Any) -> None:
    answers = []
    for engine in (chat_engine, simulated):
        await ask(engine, "/v1/completions", TEXT | {"max_tokens": 2}, **{"X-Request-Id": "both"})
        async with engine.client() as client:
            answers.append((await client.get("/penstock/receipts/both")).json())
            missing = await client.get("/penstock/receipts/neither")
        assert missing.status_code == 404
        assert (await engine.figures()).generation_tokens >= 2
    assert list(answers[0]) == list(answers[1])
    assert answers[0]["completion_tokens"] == answers[1]["completion_tokens"] == 2


async def oracle(engine: Any) -> dict[str, Any]:
    async with engine.client() as client:
        found: dict[str, Any] = (await client.get("/penstock/oracle")).json()["requests"]
    return found


async def test_the_oracle_knows_every_request(simulated: Any) -> None:
    await ask(simulated, "/v1/completions", TEXT | {"max_tokens": 5, "n": 3}, **{"X-Request-Id": "whole"})
    streamed = CHAT | {"max_tokens": 4, "stream": True, "stream_options": {"include_usage": True}}
    answer = await ask(simulated, "/v1/chat/completions", streamed, **{"X-Request-Id": "stream"})
    known = await oracle(simulated)
    assert known["whole"]["completion_tokens"] == 15
    last = json.loads(answer.text.split("\n\n")[-3].removeprefix("data: "))
    assert last["usage"]["completion_tokens"] == known["stream"]["completion_tokens"] == 4
    assert {one["outcome"] for one in known.values()} == {"finished"}


async def test_a_client_that_leaves_stops_its_tokens(simulated: Any, wait_until: Any) -> None:
    body = {"model": simulated.spec.model, **TEXT, "max_tokens": 10_000, "ignore_eos": True, "stream": True}
    headers = {"X-Request-Id": "left"}
    async with simulated.client() as client:
        async with client.stream("POST", "/v1/completions", json=body, headers=headers) as response:
            lines = response.aiter_lines()
            for _ in range(6):
                await anext(lines)
        got = (await client.get("/penstock/receipts/left")).json()
        assert (got["finished"], got["aborted"]) == (True, True)
        await asyncio.sleep(0.1)
        assert (await client.get("/penstock/receipts/left")).json() == got
    assert 3 <= got["completion_tokens"] < 1000


async def test_tokens_come_at_the_pace_that_was_set(simulated: Any) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await ask(simulated, "/v1/completions", TEXT | {"max_tokens": 50, "ignore_eos": True})
    assert 0.45 < loop.time() - began < 5


FAULTY = {"stream": True, "stream_options": EVERY, "max_tokens": 10, "ignore_eos": True}


async def faulty(engine: Any, fault: dict[str, Any], **more: Any) -> httpx.Response:
    headers = {"x-penstock-fault": json.dumps(fault), "X-Request-Id": "faulty"}
    return await ask(engine, "/v1/completions", TEXT | FAULTY | more, **headers)


@pytest.mark.parametrize("fault", ["die_at_token", "cut_at_token"])
async def test_it_breaks_off_at_the_token_that_was_said(simulated: Any, fault: str, wait_until: Any) -> None:
    body = {"model": simulated.spec.model, **TEXT, **FAULTY}
    lines = []
    async with simulated.client() as client:
        headers = {"x-penstock-fault": json.dumps({fault: 4})}
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012
            async with client.stream("POST", "/v1/completions", json=body, headers=headers) as response:
                async for line in response.aiter_lines():
                    lines += [line] if line else []
        assert len(lines) == 3
        if fault == "cut_at_token":
            assert (await client.get("/health")).status_code == 200
        else:
            # Refused, or accepted by a socket whose process is just ending.
            with pytest.raises(httpx.TransportError):
                await client.get("/health")


async def test_an_error_comes_as_an_event_and_nothing_is_said_of_usage(simulated: Any) -> None:
    answer = await faulty(simulated, {"error_at_token": 3, "error_text": "it broke"})
    parts = answer.text.split("\n\n")
    assert parts[-2] == "data: [DONE]"
    assert json.loads(parts[-3].removeprefix("data: "))["error"]["message"] == "it broke"
    assert (await oracle(simulated))["faulty"] == {
        "prompt_tokens": 2,
        "cached_tokens": 0,
        "completion_tokens": 2,
        "outcome": "aborted",
    }
    whole = await faulty(simulated, {"error_at_token": 3}, stream=False)
    assert whole.status_code == 500
    bare = await faulty(simulated, {"without_usage": True})
    assert "usage" not in bare.text
    assert bare.text.count("data: ") == 11


async def test_it_says_what_it_is_told_to_say(simulated: Any) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    told = [{"reasoning": "hm"}, {"content": "<b>"}, {"tool_calls": [call]}]
    fault = {"x-penstock-fault": json.dumps({"deltas": told})}
    asked = CHAT | {"stream": True, "stream_options": EVERY}
    answer = await ask(simulated, "/v1/chat/completions", asked, **fault)
    chunks = [json.loads(event[6:]) for event in answer.text.split("\n\n") if event.startswith("data: {")]
    assert [chunk["choices"][0]["delta"] for chunk in chunks[1:-1]] == told
    assert chunks[-1]["usage"]["completion_tokens"] == len(told)


async def test_it_refuses_and_is_slow_when_told(simulated: Any) -> None:
    assert (await faulty(simulated, {"status": 503})).status_code == 503
    loop = asyncio.get_running_loop()
    began = loop.time()
    await faulty(simulated, {"first_token_ms": 400}, max_tokens=1)
    assert loop.time() - began > 0.4
    assert (await faulty(simulated, {"no_such_fault": 1})).status_code == 400


async def test_it_hangs_as_a_whole_until_it_is_mended(simulated: Any) -> None:
    async with simulated.client() as client:
        await client.post("/penstock/faults", json={"hang_at_token": 2})
        stuck = asyncio.create_task(ask(simulated, "/v1/completions", TEXT | FAULTY))
        body = {"model": simulated.spec.model, **TEXT, "max_tokens": 3}
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/completions", json=body, timeout=0.3)
        assert (await client.get("/health")).status_code == 200
        assert (await simulated.figures()).running >= 1
        await client.request("DELETE", "/penstock/faults")
        assert (await asyncio.wait_for(stuck, 5)).text.endswith("data: [DONE]\n\n")
