"""The relay's checkpoints: what they are told, how often, and that False ends a stream, counted exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from penstock.serving import receipts, relay
from penstock.serving.call import Call, Surface, UsageView
from penstock.serving.relay import Checkpoint, Ending, Patience, StreamRelay
from penstock.serving.usage import EngineUsage
from penstock_engines.client import EngineAddress, post

MODEL = "penstock/demo-chat"


class Exchange:
    """One stream through a real connection to a simulated engine; the client reads unless told not to."""

    def __init__(self, engine: Any, checkpoint: Checkpoint, **asked: object) -> None:
        self.engine = engine
        self.address = EngineAddress(engine.socket)
        self.checkpoint = checkpoint
        self.asked = asked
        self.sent = b""
        self.reads = asyncio.Event()
        self.reads.set()

    async def run(self, patience: Patience | None = None) -> Ending:
        call = Call(
            *(b"e" * 16, "req_1", None, Surface.CHAT),
            *(None, None, None, b"", True, UsageView.CONTINUOUS, 1, 1, 0, None),  # type: ignore[arg-type]
        )
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        } | self.asked
        connection = await self.address.connect()
        self.relay = StreamRelay(
            connection, patience or Patience(10, 10), call, self._send, [], self.checkpoint
        )
        request = post(call.surface.engine_path, msgspec.json.encode(body), b"x-request-id: req_1\r\n")
        connection.send(request, self.relay)
        return await self.relay.run(self._receive)  # type: ignore[arg-type]

    async def _send(self, message: Any) -> None:
        await self.reads.wait()
        self.sent += message.get("body", b"")

    async def _receive(self) -> None:
        await asyncio.get_running_loop().create_future()


@pytest.fixture
async def engine(bench: Any) -> Callable[..., Any]:
    return bench.start_engine


async def test_a_checkpoint_is_told_the_first_count_and_then_the_running_one(engine: Any) -> None:
    seen: list[EngineUsage] = []

    def checkpoint(usage: EngineUsage) -> bool:
        seen.append(usage)
        return True

    exchange = Exchange(await engine(), checkpoint, max_tokens=1000, ignore_eos=True)
    assert await exchange.run() is Ending.FINISHED
    counts = [usage.output_tokens for usage in seen]
    assert counts == sorted(counts)
    # The engine writes as fast as it is read, so one read brings many events; the first comes alone.
    assert counts[0] < 300
    assert len(counts) >= 3
    assert all(usage.prompt_tokens == 2 for usage in seen)


async def test_checkpoints_are_a_few_tokens_apart(engine: Any) -> None:
    seen: list[int] = []

    def checkpoint(usage: EngineUsage) -> bool:
        seen.append(usage.output_tokens)
        return True

    exchange = Exchange(await engine(tokens_per_second=1000), checkpoint, max_tokens=200, ignore_eos=True)
    assert await exchange.run() is Ending.FINISHED
    assert len(seen) >= 5


async def test_a_slow_stream_is_checked_by_the_clock(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CHECK_EVERY_S", 0.2)
    seen: list[int] = []

    def checkpoint(usage: EngineUsage) -> bool:
        seen.append(usage.output_tokens)
        return len(seen) < 4

    # Fewer tokens than CHECK_EVERY_BYTES would ever ask about.
    exchange = Exchange(await engine(tokens_per_second=2), checkpoint, max_tokens=12, ignore_eos=True)
    assert await exchange.run() is Ending.CREDIT_ENDED
    assert len(seen) == 4


@pytest.mark.parametrize("at", [0, 1, 20, 100])
async def test_no_more_credit_stops_the_engine_and_its_receipt_is_exact(engine: Any, at: int) -> None:
    running = await engine(tokens_per_second=500)
    exchange = Exchange(running, lambda usage: usage.output_tokens < at, max_tokens=5000, ignore_eos=True)
    assert await exchange.run() is Ending.CREDIT_ENDED
    usage = await receipts.fetch(exchange.address, "req_1")
    made = (await running.made())["req_1"]
    assert made["outcome"] == "aborted"
    assert usage is not None
    assert at <= usage.output_tokens == made["completion_tokens"] < 5000
    assert b"[DONE]" not in exchange.sent
    exchange.address.close()


async def test_no_more_credit_stops_the_engine_although_the_client_does_not_read(engine: Any) -> None:
    running = await engine(tokens_per_second=500)
    exchange = Exchange(running, lambda usage: usage.output_tokens < 1, max_tokens=5000, ignore_eos=True)
    exchange.reads.clear()
    task = asyncio.create_task(exchange.run())
    async with asyncio.timeout(30):
        while (await running.made()).get("req_1", {}).get("outcome") != "aborted":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not task.done()
    exchange.reads.set()
    assert await task is Ending.CREDIT_ENDED
