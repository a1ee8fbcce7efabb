"""The autoscaler on a pool that queues and takes time to start engines, in virtual seconds, by seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest

from penstock_engines.autoscale import Autoscaler, Sample, ScaleRules

RULES = ScaleRules(
    replicas_min=1, replicas_max=8, running_target=10, up_after_s=5, down_after_s=60, idle_after_s=120
)
START_S = 6
"""Until an engine that was asked for is ready."""
PLACES = 14
"""Requests that an engine runs at once: a little more than is aimed at."""
SERVES_S = 4.0
PROMPT_TOKENS = 200.0


class Pool:
    """Requests come, wait, run for some seconds and go; engines come late and leave at once."""

    def __init__(self, rules: ScaleRules, seed: int, replicas: int = 1) -> None:
        self.scaler = Autoscaler(rules)
        self.dice = random.Random(seed)
        self.wanted = replicas
        self.ready_at: list[float] = [0.0] * replicas
        self.running: list[float] = []
        """When each request is over."""
        self.waiting: list[float] = []
        """When each came."""
        self.firsts: list[tuple[float, float]] = []
        self.last_asked_s = 0.0
        self.sizes: list[int] = []

    def play(self, rate: Callable[[float], float], seconds: int) -> None:
        """Let requests come at a rate per second, and decide every second."""
        for second in range(len(self.sizes), len(self.sizes) + seconds):
            now = float(second)
            self.running = [end for end in self.running if end > now]
            due = now
            while rate(now) and (due := due + self.dice.expovariate(rate(now))) < now + 1:
                self.waiting.append(now)
                self.last_asked_s = now
            ready = sum(at <= now for at in self.ready_at)
            while self.waiting and len(self.running) < ready * PLACES:
                came = self.waiting.pop(0)
                self.firsts.append((now, now - came + 0.1))
                self.running.append(now + self.dice.uniform(0.5, 1.5) * SERVES_S)
            self._decide(now, ready)

    def _decide(self, now: float, ready: int) -> None:
        lately = sorted(took for at, took in self.firsts if at > now - 30)
        busy = bool(self.running or self.waiting)
        sample = Sample(
            at_s=now,
            replicas=self.wanted,
            ready=ready,
            running=len(self.running),
            waiting_requests=len(self.waiting),
            waiting_tokens=len(self.waiting) * PROMPT_TOKENS,
            kv_usage=len(self.running) / max(1, ready) / 40,
            first_token_p90_s=lately[len(lately) * 9 // 10] if lately else 0.0,
            idle_s=0.0 if busy else now - self.last_asked_s,
        )
        self.wanted = self.scaler.decide(sample).replicas
        while len(self.ready_at) < self.wanted:
            self.ready_at.append(now + START_S)
        del self.ready_at[self.wanted :]
        self.sizes.append(self.wanted)


def changes(sizes: list[int]) -> list[int]:
    """Every change of size."""
    return [after - before for before, after in pairwise(sizes) if after != before]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("engines", [1, 2, 4])
def test_a_load_that_does_not_change_is_served_without_flapping(engines: int, seed: int) -> None:
    """Once it has settled, ten minutes of the same load change the size by one at most, and rarely."""
    pool = Pool(RULES, seed, engines)
    rate = 0.9 * engines * RULES.running_target / SERVES_S
    pool.play(lambda _: rate, 180)
    pool.play(lambda _: rate, 600)
    later = pool.sizes[180:]
    assert max(later) - min(later) <= 1
    assert len(changes(later)) <= 4
    assert abs(later[-1] - engines) <= 1


@pytest.mark.parametrize("seed", range(10))
def test_a_step_is_answered_within_seconds(seed: int) -> None:
    pool = Pool(RULES, seed)
    pool.play(lambda _: 1.0, 120)
    assert pool.sizes[-1] == 1
    pool.play(lambda _: 4 * RULES.running_target / SERVES_S, 90)
    after = pool.sizes[120:]
    first = next(second for second, size in enumerate(after) if size > 1)
    enough = next(second for second, size in enumerate(after) if size >= 4)
    assert first <= RULES.up_after_s + 5
    assert enough <= 45
    assert not pool.waiting


@pytest.mark.parametrize("seed", range(10))
def test_a_step_down_is_followed_after_a_whole_while(seed: int) -> None:
    pool = Pool(RULES, seed, 4)
    pool.play(lambda _: 4 * RULES.running_target / SERVES_S, 60)
    busy = pool.sizes[-1]
    pool.play(lambda _: 1.0, 400)
    after = pool.sizes[60:]
    assert all(size >= busy for size in after[: int(RULES.down_after_s) - 5])
    assert after[-1] == 1
    assert all(change < 0 for change in changes(after[20:]))


@pytest.mark.parametrize("seed", range(10))
def test_it_sleeps_after_the_idle_time_and_wakes_for_the_next_request(seed: int) -> None:
    pool = Pool(msgspec.structs.replace(RULES, replicas_min=0), seed)
    pool.play(lambda _: 2.0, 60)
    pool.play(lambda _: 0.0, 200)
    asleep = next(second for second, size in enumerate(pool.sizes) if size == 0)
    assert RULES.idle_after_s <= asleep - pool.last_asked_s <= RULES.idle_after_s + 2
    assert set(pool.sizes[asleep:]) == {0}
    pool.play(lambda _: 1.0, 60)
    woken = next(second for second, size in enumerate(pool.sizes[260:]) if size > 0)
    assert woken <= 6
    assert not pool.waiting
