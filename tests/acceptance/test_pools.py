"""Pools with real vLLM: a model sleeps and wakes, one floods, an engine dies, a version is replaced."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import openai
import psutil
import pytest
import yaml

CHAT, EMBED, OWN = "penstock/demo-chat", "penstock/demo-embed", "acceptance/own-chat"
WITHIN_S = 300.0
FLOOD = 400
"""Far more than both gateways may send to the engine at once."""


async def until(done: Callable[[], bool], what: str) -> None:
    """Wait for a state that a command of an operator shows."""
    end = time.monotonic() + WITHIN_S
    while not await asyncio.to_thread(done):
        assert time.monotonic() < end, f"it never came true: {what}"
        await asyncio.sleep(0.3)


async def until_true(done: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a state that a question shows."""
    end = time.monotonic() + WITHIN_S
    while not await done():
        assert time.monotonic() < end, f"it never came true: {what}"
        await asyncio.sleep(0.3)


async def until_engines(platform: Any, model: str, *versions: int) -> list[dict[str, Any]]:
    """Wait until a model's engines are of these versions, all ready, and none else is there."""

    def as_wanted() -> bool:
        engines = platform.engines(model)
        return [(one["state"], one["version"]) for one in engines] == [("ready", each) for each in versions]

    await until(as_wanted, f"{model} has engines of versions {versions}")
    found: list[dict[str, Any]] = platform.engines(model)
    return found


def words(number: int) -> list[Any]:
    return [{"role": "user", "content": f"Tell me story {number}"}]


class Chatting:
    """Clients that stream one answer after the other, and what came of each."""

    def __init__(self, client: openai.AsyncOpenAI, model: str, *, clients: int, tokens: int = 60) -> None:
        self.client = client
        self.model = model
        self.tokens = tokens
        self.whole = 0
        self.cut: list[openai.APIError] = []
        """Told in the middle of an answer."""
        self.refused: list[openai.APIError] = []
        """Told before the first byte of one."""
        self._more = asyncio.Condition()
        self._stopping = False
        self._clients = clients
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Chatting:
        self._tasks = [asyncio.create_task(self._chat(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def more(self, answers: int) -> None:
        """Wait until so many more are whole."""
        wanted = self.whole + answers
        async with asyncio.timeout(WITHIN_S), self._more:
            await self._more.wait_for(lambda: self.whole >= wanted)

    async def _chat(self, number: int) -> None:
        while not self._stopping:
            begun = False
            try:
                stream = await self.client.chat.completions.create(
                    model=self.model,
                    messages=words(number),
                    stream=True,
                    max_tokens=self.tokens,
                    extra_body={"ignore_eos": True},
                )
                begun = True
                async for _ in stream:
                    pass
                self.whole += 1
                async with self._more:
                    self._more.notify_all()
            except openai.APIError as error:
                (self.cut if begun else self.refused).append(error)


@pytest.fixture(autouse=True)
async def the_books_agree(platform: Any) -> AsyncIterator[None]:
    """Whatever was done to engines here, what they counted is what was charged."""
    yield
    end = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()

    def agreed() -> bool:
        command = [
            sys.executable,
            "-P",
            "-m",
            "penstock.cli",
            "billing",
            "reconcile",
            "--json",
            "--until",
            end,
        ]
        ran = subprocess.run(command, check=False, env=platform.environment, capture_output=True, text=True)
        report = json.loads(ran.stdout)
        in_flight: dict[str, int] = report["in_flight"]
        return not report["differences"] and not any(in_flight.values())

    await until(agreed, "engines, journals, events and books agree")


async def test_a_sleeping_model_wakes_once_for_all_who_ask_while_another_answers(
    platform: Any, async_client: openai.AsyncOpenAI, ledger: asyncpg.Connection
) -> None:
    platform.command("pools", "set", EMBED, "--set", "idle_after_s=1")
    await until_engines(platform, EMBED)
    starts = await ledger.fetchval("select count(*) from engines.start where model = $1", EMBED)

    async def ask(number: int) -> str:
        raw = await async_client.embeddings.with_raw_response.create(model=EMBED, input=f"text {number}")
        assert raw.parse().data[0].embedding
        return str(raw.headers["x-request-id"])

    async with Chatting(async_client, CHAT, clients=2) as chatting:
        asked = [asyncio.create_task(ask(number)) for number in range(6)]
        await chatting.more(2)
        requests = await asyncio.gather(*asked)
    assert chatting.refused == chatting.cut == []
    query = "select count(*) from engines.start where model = $1"
    assert await ledger.fetchval(query, EMBED) == starts + 1
    shown = json.loads(platform.command("requests", "show", requests[0], "--json"))
    assert shown["wake_us"] > 0
    platform.command("pools", "set", EMBED, "--set", "idle_after_s=900")
    assert "waiting for the sleeping model" in platform.command("pools", "show", EMBED)


async def test_a_flood_from_one_key_leaves_another_its_turn(
    platform: Any, async_client: openai.AsyncOpenAI, ledger: asyncpg.Connection
) -> None:
    made = platform.command("keys", "create", "f", "--organisation", "flooding", "--json")
    key = json.loads(made)["api_key"]
    begun = asyncio.Event()

    async def one(client: openai.AsyncOpenAI, number: int, tokens: int) -> str:
        raw = await client.chat.completions.with_raw_response.create(
            model=CHAT, messages=words(number), max_tokens=tokens, extra_body={"ignore_eos": True}
        )
        usage = raw.parse().usage
        assert usage is not None
        assert usage.completion_tokens == tokens
        begun.set()
        return str(raw.headers["x-request-id"])

    async with openai.AsyncOpenAI(
        base_url=platform.base_url, api_key=key, max_retries=0, timeout=WITHIN_S
    ) as flooding:
        flood = [asyncio.create_task(one(flooding, number, 120)) for number in range(FLOOD)]
        await begun.wait()
        chat = [await one(async_client, number, 5) for number in range(3)]
        flooded = await asyncio.gather(*flood)

    async def shipped() -> bool:
        query = "select count(*) from billing.usage_event where request_id = any($1)"
        return bool(await ledger.fetchval(query, [*chat, *flooded]) == len(chat) + FLOOD)

    await until_true(shipped, "every request is recorded")
    # By the platform's own clock: this one process is busy with all the answers of the flood.
    overtaken = await ledger.fetch(
        """
        select chat.request_id, count(flood.request_id) as later
        from billing.usage_event as chat
        join billing.usage_event as flood on flood.request_id = any($2)
          and flood.ended_at - flood.duration_us * interval '1 microsecond'
              < chat.ended_at - chat.duration_us * interval '1 microsecond'
          and flood.ended_at > chat.ended_at
        where chat.request_id = any($1) group by chat.request_id
        """,
        chat,
        flooded,
    )
    # First come, first served would have answered before it all of the flood that came before it.
    assert max(row["later"] for row in overtaken) > FLOOD // 4


async def test_an_engine_killed_under_load_fails_nothing_that_had_not_begun(
    platform: Any, async_client: openai.AsyncOpenAI
) -> None:
    platform.command("pools", "set", CHAT, "--min", "2", "--max", "2")
    (doomed, _) = await until_engines(platform, CHAT, 1, 1)
    at = str(platform.socket_of(doomed))
    processes = [
        process
        for process in psutil.Process(platform.pid).children(recursive=True)
        if any(at in str(connection.laddr) for connection in process.net_connections("unix"))
    ]
    async with Chatting(async_client, CHAT, clients=24) as chatting:
        await chatting.more(24)
        for process in processes:
            process.kill()
        await chatting.more(48)
    assert chatting.refused == []
    assert all("engine failed" in str(error) for error in chatting.cut)
    platform.command("pools", "set", CHAT, "--min", "1", "--max", "1")
    await until_engines(platform, CHAT, 1)


async def test_a_version_is_rolled_and_rolled_back_under_load_without_an_error(
    platform: Any, async_client: openai.AsyncOpenAI
) -> None:
    card = Path(platform.environment["PENSTOCK_CARDS"]) / "acceptance--own-chat.yaml"
    platform.command("pools", "create", OWN, "--min", "1")
    await until_engines(platform, OWN, 1)
    async with Chatting(async_client, OWN, clients=4) as chatting:
        await chatting.more(4)
        changed = yaml.safe_load(card.read_text())
        changed["engine"]["kv_cache_mib"] = 96
        card.write_text(yaml.safe_dump(changed))
        platform.command("pools", "roll", OWN, "--note", "more cache")
        await until_engines(platform, OWN, 2)
        await chatting.more(4)
        platform.command("pools", "rollback", OWN)
        await until_engines(platform, OWN, 1)
        await chatting.more(4)
    assert chatting.refused == chatting.cut == []
    platform.command("pools", "remove", OWN)
    await until(lambda: not platform.engines(OWN), "its engine has finished")
