"""An endpoint under its own URL, with OpenAI's own client: what it says of itself, its keys, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import jsonschema
import openai
import pytest

from penstock.access import keys
from penstock.endpoints import serverless

Body = Callable[..., bytes]
API = "/api/v1/serverless-endpoints"
MODEL = "penstock/demo-chat"
PEPPER = b"p" * 32
ASKED: Any = {"model": "azureai", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


async def refresh(bench: Any) -> None:
    await bench.gateway.endpoints.refresh(bench.database)
    await bench.gateway.keyring.refresh()


async def make(bench: Any, name: str = "front-desk", model: str = MODEL) -> dict[str, Any]:
    async with bench.client() as client:
        answer = await client.post(API, json={"name": name, "model": model})
    assert answer.status_code == 201, answer.text
    await refresh(bench)
    made: dict[str, Any] = answer.json()
    return made


@pytest.fixture
async def opened(bench: Any) -> AsyncIterator[Callable[..., openai.AsyncOpenAI]]:
    """OpenAI's client with a key, at an endpoint."""
    clients: list[openai.AsyncOpenAI] = []

    def run(key: str, name: str = "front-desk") -> openai.AsyncOpenAI:
        url = f"{bench.url}/serverless/{name}/v1"
        clients.append(openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=0))
        return clients[-1]

    yield run
    for each in clients:
        await each.close()


async def test_openais_client_works_with_both_keys_and_one_is_replaced_at_a_time(
    bench: Any, opened: Callable[..., openai.AsyncOpenAI]
) -> None:
    await bench.start_engine()
    made = await make(bench)
    first, second = opened(made["primary_key"]), opened(made["secondary_key"])
    for client in (first, second):
        assert [model.id async for model in client.models.list()] == [MODEL]
        assert (await client.models.retrieve(MODEL)).owned_by == "penstock"
        answer = await client.chat.completions.create(**ASKED)
        assert answer.choices[0].message.content
        stream = await client.chat.completions.create(**ASKED, stream=True)
        assert [chunk async for chunk in stream]
        assert (await client.completions.create(model="x", prompt="Hi", max_tokens=5)).choices[0].text
    async with bench.client() as client:
        answer = await client.post(f"{API}/front-desk/regenerate-keys", json={"key_type": "primary"})
    await refresh(bench)
    with pytest.raises(openai.AuthenticationError):
        await first.chat.completions.create(**ASKED)
    await second.chat.completions.create(**ASKED)
    await opened(answer.json()["primary_key"]).chat.completions.create(**ASKED)


async def test_what_is_wrong_is_said_in_openais_shape(
    bench: Any, opened: Callable[..., openai.AsyncOpenAI]
) -> None:
    await bench.start_engine()
    made = await make(bench)
    other = await make(bench, "back-office")
    async with bench.database.acquire() as connection:
        stranger = await keys.create(connection, PEPPER, name="x", organisation="strangers")
    mine = opened(made["primary_key"])
    with pytest.raises(openai.AuthenticationError) as wrong:
        await opened(other["primary_key"]).chat.completions.create(**ASKED)
    assert wrong.value.code == "wrong_endpoint"
    with pytest.raises(openai.AuthenticationError) as wrong:
        await opened(other["primary_key"]).models.list()
    with pytest.raises(openai.NotFoundError) as unknown:
        await opened(stranger).chat.completions.create(**ASKED)
    assert unknown.value.code == "endpoint_not_found"
    with pytest.raises(openai.NotFoundError):
        await opened(stranger).models.list()
    with pytest.raises(openai.NotFoundError) as unknown:
        await mine.models.retrieve("penstock/demo-embed")
    assert "offered: penstock/demo-chat" in unknown.value.message
    with pytest.raises(openai.NotFoundError) as unknown:
        await mine.images.generate(prompt="a sluice")
    assert "v1/chat/completions" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as task:
        await mine.embeddings.create(model=MODEL, input="Hi")
    assert task.value.code == "model_task_mismatch"


async def test_a_suspended_endpoint_says_so_and_still_describes_itself(
    bench: Any, opened: Callable[..., openai.AsyncOpenAI]
) -> None:
    made = await make(bench)
    async with bench.client() as client:
        await client.patch(f"{API}/front-desk", json={"suspended": True})
    await refresh(bench)
    client = opened(made["primary_key"])
    with pytest.raises(openai.PermissionDeniedError, match="suspended by its organisation") as refused:
        await client.chat.completions.create(**ASKED)
    assert refused.value.code == "endpoint_suspended"
    assert [model.id async for model in client.models.list()] == [MODEL]


async def test_requests_that_run_when_an_endpoint_is_deleted_end_and_are_billed(
    bench: Any, opened: Callable[..., openai.AsyncOpenAI]
) -> None:
    await bench.start_engine(tokens_per_second=40, answer_tokens=40)
    made = await make(bench)
    client = opened(made["primary_key"])
    asked = ASKED | {"max_tokens": 40, "stream": True, "stream_options": {"include_usage": True}}
    answer = await client.chat.completions.with_raw_response.create(**asked)
    stream = answer.parse()
    events = aiter(stream)
    await anext(events)
    async with bench.client() as manager:
        assert (await manager.delete(f"{API}/front-desk")).status_code == 204
        shown = (await manager.get(f"{API}/front-desk")).json()
        assert shown["state"] == "deleting"
        await refresh(bench)
        # Nobody calls it any more, by whichever key, while the one that runs goes on.
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(**ASKED)
        with pytest.raises(openai.NotFoundError):
            await opened(bench.key).chat.completions.create(**ASKED)
        again = await make(bench)
        await opened(again["primary_key"]).chat.completions.create(**ASKED)
        last = [chunk async for chunk in events][-1]
        event = await bench.event(answer.headers["x-request-id"])
        assert (event["outcome"], event["endpoint"]) == ("done", "front-desk")
        assert event["output_tokens"] == last.usage.completion_tokens == 40
        assert event["cost_nano_usd"] > 0
        # A controller ends its minutes; then it is gone, and the one with its name is not.
        listed = (await manager.get(API)).json()["data"]
        assert [each["state"] for each in listed] == ["online", "deleting"]
        async with bench.database.acquire() as connection:
            await serverless.ended(connection, list(await serverless.leaving(connection)))
        assert len((await manager.get(API)).json()["data"]) == 1


async def test_the_description_is_of_what_is_answered(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    made = await make(bench)
    headers = {"api-key": made["secondary_key"], "content-type": "application/json"}
    async with bench.client() as client:
        url = "/serverless/front-desk"
        del client.headers["authorization"]
        assert (await client.get(f"{url}/swagger.json")).status_code == 401
        found = await client.get(f"{url}/swagger.json", headers=headers)
        assert found.status_code == 200
        document = found.json()
        assert (await client.head(f"{url}/swagger.json", headers=headers)).content == b""
        wrong = await client.post(f"{url}/swagger.json", headers=headers)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")

        def check(schema: str, value: Any) -> None:
            whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
            jsonschema.Draft202012Validator(whole).validate(value)

        answers = await asyncio.gather(
            client.post(f"{url}/v1/chat/completions", content=chat(), headers=headers),
            client.post(f"{url}/v1/completions", json={"prompt": "Hi", "max_tokens": 5}, headers=headers),
            client.get(f"{url}/v1/models", headers=headers),
            client.get(f"{url}/v1/models/{MODEL}", headers=headers),
            client.post(f"{url}/v1/chat/completions", json={}, headers=headers),
        )
        schemas = ("ChatCompletion", "Completion", "Models", "Model", "Error")
        for schema, answer in zip(schemas, answers, strict=True):
            check(schema, answer.json())
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 400]
