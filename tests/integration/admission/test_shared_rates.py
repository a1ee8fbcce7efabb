"""Limits over two gateways and a real Valkey: they hold for both together, as soon as each has heard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from penstock.access.limits import RateLimits
from penstock.admission.at_once import GRACE_S, TURN_S
from penstock.admission.rates import Pass, RateLimited, Rates, Scope
from penstock.admission.shared_counters import SharedCounters
from penstock.local import valkey
from penstock.local.valkey import Valkey


class Gateways:
    """Two gateways' limits, under one clock."""

    def __init__(self, url: str) -> None:
        self.now_s = 12_000.5
        self.counters = [SharedCounters(url) for _ in range(2)]
        self.one, self.other = (Rates(each, lambda: self.now_s) for each in self.counters)

    async def hear(self) -> None:
        """Let both tell what they counted, and hear of it."""
        for _ in range(2):
            for each in self.counters:
                await each.exchange()

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.one.tidy()
        self.other.tidy()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    server = await valkey.start(tmp_path / "valkey")
    yield server
    await server.stop()


@pytest.fixture
async def gateways(server: Valkey) -> AsyncIterator[Gateways]:
    made = Gateways(server.url)
    yield made
    for each in made.counters:
        await each.close()


def scope(**limits: int) -> list[Scope]:
    return [Scope("key k", "key k", RateLimits(**limits))]


def let_in(rates: Rates, scopes: list[Scope], most: int) -> list[Pass]:
    passes = []
    with contextlib.suppress(RateLimited):
        while len(passes) < most:
            passes.append(rates.enter(scopes))
    return passes


def end(passes: list[Pass]) -> None:
    for each in passes:
        with each:
            pass


async def test_requests_at_once_are_those_of_both(gateways: Gateways) -> None:
    limited = scope(concurrent_requests=5)
    first = let_in(gateways.one, limited, 3)
    assert len(let_in(gateways.other, limited, 1)) == 1
    await gateways.hear()
    assert len(let_in(gateways.other, limited, 9)) == 1
    end(first)
    await gateways.hear()
    assert len(let_in(gateways.other, limited, 9)) == 3


async def test_long_requests_stay_counted_while_turns_pass(gateways: Gateways) -> None:
    limited = scope(concurrent_requests=5)
    let_in(gateways.one, limited, 4)
    assert len(let_in(gateways.other, limited, 1)) == 1
    for _ in range(5):
        await gateways.hear()
        assert let_in(gateways.other, limited, 9) == []
        gateways.pass_time(TURN_S)
        # The new counter is not full yet: what was known before holds.
        assert let_in(gateways.other, limited, 9) == []


async def test_what_a_killed_gateway_had_is_forgotten(gateways: Gateways) -> None:
    limited = scope(concurrent_requests=5)
    let_in(gateways.one, limited, 5)
    await gateways.hear()
    let_in(gateways.other, limited, 1)
    await gateways.counters[1].exchange()
    assert let_in(gateways.other, limited, 9) == []
    gateways.now_s += TURN_S + GRACE_S
    gateways.other.tidy()
    await gateways.counters[1].exchange()
    assert len(let_in(gateways.other, limited, 9)) >= 4


async def test_a_minutes_tokens_are_those_of_both_even_for_one_that_only_asks(gateways: Gateways) -> None:
    limited = scope(tokens_per_minute=100)
    with gateways.one.enter(limited) as passed:
        passed.tokens = 100
    # It knows nothing of it at first, asks by deciding, and hears of it a moment later.
    end([gateways.other.enter(limited)])
    await gateways.hear()
    with pytest.raises(RateLimited, match="100 tokens per minute"):
        gateways.other.enter(limited)


async def test_without_valkey_each_gateway_has_the_whole_limit(gateways: Gateways, server: Valkey) -> None:
    limited = scope(concurrent_requests=2, requests_per_minute=50)
    await server.stop()
    passes = [let_in(rates, limited, 9) for rates in (gateways.one, gateways.other)]
    assert [len(each) for each in passes] == [2, 2]
    with pytest.raises((RedisError, OSError)):
        await gateways.counters[0].exchange()
    gateways.pass_time(300)
    with pytest.raises((RedisError, OSError)):
        await gateways.counters[0].exchange()
    for each in passes:
        end(each)
    assert len(let_in(gateways.one, limited, 9)) == 2
