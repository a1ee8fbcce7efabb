"""An adapter of the demo model on the whole platform, with real vLLM: uploaded, called, private, billed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import openai
import pytest

DEMO = Path(__file__).parents[2] / "catalog" / "demo"
CHAT = "penstock/demo-chat"
QUESTION: Any = {
    "messages": [{"role": "user", "content": "What is Penstock?"}],
    "max_tokens": 24,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("demo_adapter", DEMO / "adapter.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    place = tmp_path_factory.mktemp("adapters")
    for seed in (1, 2):
        module.write(place / str(seed), seed)
    return place


async def said(client: openai.AsyncOpenAI, model: str) -> tuple[str, str, str]:
    """Text, model and request id of an answer; an adapter is there within a second of its upload."""
    for _ in range(100):
        try:
            answer = await client.chat.completions.with_raw_response.create(model=model, **QUESTION)
            break
        except openai.NotFoundError:
            await asyncio.sleep(0.1)
    else:
        pytest.fail(f"{model} never came")
    found = answer.parse()
    return str(found.choices[0].message.content), found.model, str(answer.headers["x-request-id"])


async def test_an_adapter_answers_otherwise_for_its_owner_alone_and_stands_on_the_bill(
    platform: Any, async_client: openai.AsyncOpenAI, ledger: asyncpg.Connection, folder: Path
) -> None:
    plain, _, _ = await said(async_client, CHAT)
    told = json.loads(
        platform.command("adapters", "upload", str(folder / "1"), "--model", CHAT, "--name", "tone", "--json")
    )
    assert (told["model"], told["version"]) == (f"{CHAT}:tone", 1)
    first, name, request_id = await said(async_client, f"{CHAT}:tone")
    assert name == f"{CHAT}:tone@1"
    assert first != plain

    files = {
        "config": (folder / "2" / "adapter_config.json").read_bytes(),
        "weights": (folder / "2" / "adapter_model.safetensors").read_bytes(),
    }
    headers = {"authorization": f"Bearer {platform.api_key}"}
    fields = {"model": CHAT, "name": "tone"}
    async with httpx.AsyncClient(base_url=platform.root_url, headers=headers) as http:
        answer = await http.post("/api/v1/adapters", data=fields, files=files)
    assert answer.status_code == 201, answer.text
    second, name, _ = await said(async_client, f"{CHAT}:tone@2")
    assert name == f"{CHAT}:tone@2"
    assert len({plain, first, second}) == 3
    assert (await said(async_client, f"{CHAT}:tone@1"))[0] == first
    assert (await said(async_client, CHAT))[0] == plain
    listed = {model.id async for model in await async_client.models.list()}
    assert f"{CHAT}:tone" in listed

    stream = await async_client.chat.completions.create(model=f"{CHAT}:tone@1", stream=True, **QUESTION)
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {f"{CHAT}:tone@1"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == first

    strangers = json.loads(
        platform.command("keys", "create", "theirs", "--organisation", "strangers", "--json")
    )["api_key"]
    async with openai.AsyncOpenAI(base_url=platform.base_url, api_key=strangers, max_retries=0) as other:
        assert (await other.chat.completions.create(model=CHAT, **QUESTION)).choices
        with pytest.raises(openai.NotFoundError) as refused:
            await other.chat.completions.create(model=f"{CHAT}:tone", **QUESTION)
        assert refused.value.code == "model_not_found"
        assert f"{CHAT}:tone" not in {model.id async for model in await other.models.list()}

    row = None
    for _ in range(100):
        row = await ledger.fetchrow("select * from billing.usage_event where request_id = $1", request_id)
        if row is not None:
            break
        await asyncio.sleep(0.1)
    assert row is not None
    assert row["model"] == f"{CHAT}:tone@1"
    assert row["cost_nano_usd"] > 0
    base = await ledger.fetchval(
        "select model from billing.price_version where id = $1", row["price_version"]
    )
    assert base == CHAT
    usage = platform.ask("/api/v1/usage?by=model")
    assert f"{CHAT}:tone@1" in json.dumps(usage)
    platform.command("adapters", "delete", "tone")
