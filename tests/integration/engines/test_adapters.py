"""Adapters in a real engine: found by their digest, told apart, called what the request says, forgotten."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

pytestmark = pytest.mark.engine

DEMO = Path(__file__).parents[3] / "catalog" / "demo"
FIRST, SECOND, BROKEN = "a" * 64, "b" * 64, "c" * 64
BODY = {"messages": [{"role": "user", "content": "What is Penstock?"}], "max_tokens": 24, "temperature": 0}
MODEL = "penstock/demo-chat"


def demo_adapter() -> Any:
    spec = importlib.util.spec_from_file_location("demo_adapter", DEMO / "adapter.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def adapters() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pa-"))
    demo_adapter().write(folder / FIRST, 1)
    demo_adapter().write(folder / SECOND, 2)
    demo_adapter().write(folder / BROKEN, 3)
    (folder / BROKEN / "adapter_model.safetensors").write_bytes(b"not what it was")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def engine(keep_engine: Any, chat_settings: Any, adapters: Path) -> Iterator[Any]:
    settings = msgspec.structs.replace(chat_settings.settings, adapter_rank_max=8, adapters_kept=4)
    yield from keep_engine(replace(chat_settings, settings=settings, adapters=adapters))


async def said(client: httpx.AsyncClient, model: str, **headers: str) -> tuple[str, str]:
    """What the model answers, and what the answer calls it."""
    answer = await client.post("/v1/chat/completions", json=BODY | {"model": model}, headers=headers)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["choices"][0]["message"]["content"], found["model"]


async def test_an_adapter_is_found_when_it_is_first_named_and_changes_the_answer(engine: Any) -> None:
    async with engine.client() as client:
        plain, _ = await said(client, MODEL)
        first, first_name = await said(client, FIRST)
        second, _ = await said(client, SECOND)
        assert len({plain, first, second}) == 3
        assert first_name == FIRST
        assert (await said(client, MODEL))[0] == plain
        listed = {each["id"] for each in (await client.get("/v1/models")).json()["data"]}
    assert listed == {MODEL, FIRST, SECOND}


async def test_the_answer_calls_it_what_the_request_says_in_every_event(engine: Any) -> None:
    called = {"x-penstock-model": "penstock/demo-chat:tone@1"}
    async with engine.client() as client:
        assert (await said(client, FIRST, **called))[1] == "penstock/demo-chat:tone@1"
        assert (await said(client, MODEL, **called))[1] == MODEL
        streamed = BODY | {"model": FIRST, "stream": True}
        answer = await client.post("/v1/chat/completions", json=streamed, headers=called)
        text = {"model": FIRST, "prompt": "Hello", "max_tokens": 4}
        completed = await client.post("/v1/completions", json=text, headers=called)
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    assert {json.loads(event)["model"] for event in events} == {"penstock/demo-chat:tone@1"}
    assert completed.json()["model"] == "penstock/demo-chat:tone@1"


@pytest.mark.parametrize("name", ["d" * 64, "../" + FIRST, FIRST.upper(), "penstock/demo-chat:tone", BROKEN])
async def test_what_is_no_adapter_is_refused_and_the_engine_goes_on(engine: Any, name: str) -> None:
    async with engine.client() as client:
        answer = await client.post("/v1/chat/completions", json=BODY | {"model": name})
        assert answer.status_code in {400, 404}
        assert (await said(client, FIRST))[0]


async def test_one_that_is_forgotten_is_read_again_when_it_is_named(engine: Any) -> None:
    async with engine.client() as client:
        before, _ = await said(client, FIRST)
        answer = await client.post("/v1/unload_lora_adapter", json={"lora_name": FIRST})
        assert answer.status_code == 200
        listed = {each["id"] for each in (await client.get("/v1/models")).json()["data"]}
        assert FIRST not in listed
        assert (await said(client, FIRST))[0] == before


async def test_more_adapters_than_are_kept_are_read_as_they_are_needed(engine: Any, adapters: Path) -> None:
    """The engine keeps four."""
    names = [f"{number:064x}" for number in range(6)]
    for number, name in enumerate(names):
        demo_adapter().write(adapters / name, 100 + number)
    async with engine.client() as client:
        answers = [(await said(client, name))[0] for name in names]
        assert len(set(answers)) == len(names)
        assert [(await said(client, name))[0] for name in names] == answers


async def test_one_that_is_forgotten_while_it_answers_goes_on(engine: Any) -> None:
    body = BODY | {"model": FIRST, "max_tokens": 200, "ignore_eos": True}
    async with engine.client() as client:
        whole = (await client.post("/v1/chat/completions", json=body)).json()
        before = whole["choices"][0]["message"]["content"]
        text, forgotten = "", False
        async with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                if not forgotten:
                    forgotten = True
                    gone = await client.post("/v1/unload_lora_adapter", json={"lora_name": FIRST})
                    assert gone.status_code == 200
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    assert text == before


async def test_more_adapters_at_once_than_are_computed_together_all_answer(
    engine: Any, adapters: Path
) -> None:
    """The engine computes four together."""
    names = [f"{number + 50:064x}" for number in range(6)]
    for number, name in enumerate(names):
        demo_adapter().write(adapters / name, 200 + number)
    async with engine.client() as client:
        alone = [await said(client, name) for name in names]
        together = await asyncio.gather(*(said(client, name) for name in [*names, *names]))
    assert [name for _, name in together] == [*names, *names]
    assert all(text for text, _ in [*alone, *together])
