"""Counters over a real Valkey: what gateways count adds up, and without it each counts alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from penstock.admission.shared_counters import SharedCounters
from penstock.local import valkey
from penstock.local.valkey import Valkey


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    server = await valkey.start(tmp_path / "valkey")
    yield server
    await server.stop()


@pytest.fixture
async def gateways(server: Valkey) -> AsyncIterator[list[SharedCounters]]:
    made = [SharedCounters(server.url) for _ in range(2)]
    yield made
    for each in made:
        await each.close()


async def test_sums_are_of_all_gateways(gateways: list[SharedCounters]) -> None:
    one, other = gateways
    one.add("x", 3, 60)
    other.add("x", 4.5, 60)
    assert (one.sum("x"), other.sum("x")) == (3, 4.5)
    await one.exchange()
    await other.exchange()
    assert other.sum("x") == 7.5
    one.add("x", 1, 60)
    await one.exchange()
    assert one.sum("x") == 8.5


async def test_others_are_heard_of_from_now_on_and_once(gateways: list[SharedCounters]) -> None:
    one, other = gateways
    other.add("x", 1_000, 60)
    await other.exchange()
    heard: list[float] = []
    one.watch("x", heard.append)
    one.add("x", 5, 60)
    await one.exchange()
    assert heard == []
    other.add("x", 7, 60)
    await other.exchange()
    await one.exchange()
    await one.exchange()
    one.add("x", 2, 60)
    await one.exchange()
    assert heard == [7]
    assert one.sum("x") == 1_014


async def test_without_a_server_each_counts_alone_and_together_again_afterwards(
    gateways: list[SharedCounters], server: Valkey, tmp_path: Path
) -> None:
    one, other = gateways
    one.add("x", 3, 60)
    await one.exchange()
    await server.stop()
    one.add("x", 4, 60)
    with pytest.raises((RedisError, OSError)):
        await one.exchange()
    assert one.sum("x") == 7
    again = await valkey.start(tmp_path / "valkey")
    try:
        await one.exchange()
        other.add("x", 1, 60)
        await other.exchange()
        # The server forgot what it had; what was not sent yet is there.
        assert other.sum("x") == 5
    finally:
        await again.stop()


async def test_counters_end_when_nobody_adds_to_them(gateways: list[SharedCounters], server: Valkey) -> None:
    one, other = gateways
    one.add("x", 3, 1)
    await one.exchange()
    await asyncio.sleep(1.5)
    other.watch("x", lambda _: None)
    await other.exchange()
    assert other.sum("x") == 0


async def test_what_is_only_watched_is_not_asked_for_until_somebody_looks(
    gateways: list[SharedCounters],
) -> None:
    one, other = gateways
    heard: list[float] = []
    one.watch("x", heard.append)
    one.add("x", 5, 60)
    await one.exchange()
    other.add("x", 7, 60)
    await other.exchange()
    await one.exchange()
    assert heard == []
    one.look("x")
    await one.exchange()
    assert heard == [7]
