"""The official client, unmodified, against real vLLM: everything it may ask of the three routes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

CHAT, EMBED = "penstock/demo-chat", "penstock/demo-embed"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_models_are_listed_and_shown(client: openai.OpenAI) -> None:
    assert {CHAT, EMBED} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(CHAT).owned_by == "penstock"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/nothing")


def test_a_whole_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=CHAT, messages=HELLO)
    with client.chat.completions.create(model=CHAT, messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert not any("usage" in c.model_fields_set for c in chunks)


def test_include_usage_is_honoured_to_the_letter(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model=CHAT, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = stream
    assert all("usage" in c.model_fields_set and c.usage is None for c in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 0


async def test_the_asynchronous_client_streams(async_client: openai.AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(model=CHAT, messages=HELLO, stream=True)
    text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert text


async def test_sixteen_at_once_share_the_engines_batch(
    async_client: openai.AsyncOpenAI, platform: Any
) -> None:
    async def one(number: int) -> int:
        stream = await async_client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": f"Tell me a story {number}"}],
            stream=True,
            max_tokens=800,
            extra_body={"ignore_eos": True},
            stream_options={"include_usage": True},
        )
        chunks = [c async for c in stream]
        assert chunks[-1].usage is not None
        return chunks[-1].usage.completion_tokens

    running: list[float] = []

    async def watch() -> None:
        while True:
            figure = await asyncio.to_thread(platform.engine_figure, CHAT, "vllm:num_requests_running")
            running.append(figure)

    watching = asyncio.create_task(watch())
    counts = await asyncio.gather(*(one(number) for number in range(16)))
    watching.cancel()
    assert counts == [800] * 16
    assert max(running) > 1


def test_several_choices(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=CHAT, messages=HELLO, n=3, temperature=1, max_tokens=5)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    with client.chat.completions.create(
        model=CHAT,
        messages=HELLO,
        n=3,
        temperature=1,
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    ) as stream:
        chunks = list(stream)
    assert {c.index for chunk in chunks for c in chunk.choices} == {0, 1, 2}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 15


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT, messages=HELLO, logprobs=True, top_logprobs=3, max_tokens=4
    )
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    assert all(len(token.top_logprobs) == 3 for token in answer.choices[0].logprobs.content)


def test_a_named_tool_is_called(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=60,
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)


def test_a_schema_is_kept(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Pick a colour"}],
        response_format={"type": "json_schema", "json_schema": {"name": "pick", "schema": schema}},
        max_tokens=60,
    )
    assert json.loads(answer.choices[0].message.content or "")["colour"] in {"red", "green"}


def test_a_seed_makes_an_answer_again(client: openai.OpenAI) -> None:
    def once(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model=CHAT, messages=HELLO, temperature=2, seed=seed, max_tokens=20
        )
        return answer.choices[0].message.content

    assert once(1) == once(1)
    assert len({once(seed) for seed in range(5)}) > 1


def test_a_stop_text_ends_the_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=CHAT, messages=HELLO).choices[0].message.content or ""
    stop = whole[4:8]
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, stop=[stop])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]


def test_plain_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=CHAT, prompt=["Hello", "What is"], max_tokens=4, logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    stream = client.completions.create(model=CHAT, prompt="Hello", max_tokens=4, stream=True)
    assert [c.choices[0].finish_reason for c in stream][-1] == "length"


def test_embeddings(client: openai.OpenAI) -> None:
    texts = ["How do I pay?", "What does it cost?", "The cat sleeps."]
    answer = client.embeddings.create(model=EMBED, input=texts)
    assert [one.index for one in answer.data] == [0, 1, 2]
    floats = client.embeddings.create(model=EMBED, input=texts[0], encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-3)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_request_ids_go_in_and_out(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=HELLO, max_tokens=1, extra_headers={"X-Client-Request-Id": "mine-42"}
    )
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["x-client-request-id"] == "mine-42"
    assert raw.parse().id == f"chatcmpl-{raw.headers['x-request-id']}"
