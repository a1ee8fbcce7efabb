"""How many engines a pool should have: pure functions over samples of its load, the clock handed in.

Each signal says how many engines it would take to bring it to its target; the largest wins. Going up is
quick, going down waits until nobody asked for more during a whole while (the stabilisation of Kubernetes'
horizontal autoscaler: the largest recommendation of a window stands). To zero only after an idle time, and
only where the pool allows it; from zero at the first request that waits.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Annotated

import msgspec
from msgspec import Meta


class ScaleRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a pool wants of its size."""

    replicas_min: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Never fewer; 0 lets it sleep."""
    replicas_max: Annotated[int, Meta(ge=0, le=1000)] = 1
    """Never more; 0 keeps it off."""
    running_target: Annotated[float, Meta(gt=0)] = 12.0
    """Requests running on one engine."""
    waiting_tokens_target: Annotated[float, Meta(gt=0)] = 4_000.0
    """Tokens waiting in the gateways' queues, per engine."""
    kv_usage_target: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """Share of an engine's KV cache in use."""
    first_token_target_s: Annotated[float, Meta(gt=0)] = 2.0
    """Time to first token at the 90th percentile."""
    tolerance: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """How far a signal may be off its target without anything being done."""
    up_after_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    """How long more engines must be asked for before they are started; from zero it is at once."""
    down_after_s: Annotated[float, Meta(ge=0, le=86400)] = 300.0
    """How long fewer must be enough before any is stopped."""
    idle_after_s: Annotated[float, Meta(ge=1, le=604800)] = 900.0
    """How long nobody may ask for the model before its last engine is stopped, where replicas_min is 0."""

    def __post_init__(self) -> None:
        """Raise ValueError where no size would do."""
        if self.replicas_min > self.replicas_max:
            raise ValueError(
                f"replicas_min is {self.replicas_min} and replicas_max {self.replicas_max}: "
                f"raise the maximum, or lower the minimum to {self.replicas_max}"
            )


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A pool at one moment."""

    at_s: float
    replicas: int
    """Engines that there should be, as was decided last."""
    ready: int
    running: int
    """Requests running on all of them."""
    waiting_requests: int
    waiting_tokens: float
    """In the gateways' queues."""
    kv_usage: float
    """Of the fullest engine, 0 to 1."""
    first_token_p90_s: float
    """Over the last while; 0 when there were no requests."""
    idle_s: float
    """Since the last request ended, or since the pool exists; 0 while one is there."""


class Decision(msgspec.Struct, frozen=True):
    """How many engines there should be, and why, in words a person understands."""

    replicas: int
    reason: str


class Demand(msgspec.Struct, frozen=True):
    """What one signal asks for."""

    replicas: int
    reason: str


def demand(rules: ScaleRules, sample: Sample) -> Demand:
    """Say how many engines the load asks for right now, before limits and stabilisation."""
    if sample.replicas == 0:
        if sample.waiting_requests:
            return Demand(1, f"waiting for the sleeping model: {sample.waiting_requests}")
        return Demand(0, "nobody asks for it")
    ready = max(1, sample.ready)
    per_ready = (
        (sample.running / ready, rules.running_target, f"requests running: {sample.running}"),
        (
            sample.waiting_tokens / ready,
            rules.waiting_tokens_target,
            f"{sample.waiting_tokens:.0f} tokens wait",
        ),
        (sample.kv_usage, rules.kv_usage_target, f"the KV cache is {sample.kv_usage:.0%} full"),
        (
            sample.first_token_p90_s if sample.waiting_requests or sample.running else 0.0,
            rules.first_token_target_s,
            f"first tokens take {sample.first_token_p90_s:.1f} s",
        ),
    )
    asked = [Demand(_scaled(ready, value, target, rules.tolerance), why) for value, target, why in per_ready]
    largest = max(asked, key=lambda each: each.replicas)
    if largest.replicas == 0:
        return Demand(1 if sample.idle_s < rules.idle_after_s else 0, f"idle for {sample.idle_s:.0f} s")
    return largest


def _scaled(ready: int, value: float, target: float, tolerance: float) -> int:
    """How many engines bring a value per engine to its target."""
    ratio = value / target
    return ready if abs(ratio - 1) <= tolerance else math.ceil(ready * ratio - 1e-9)


class Autoscaler:
    """One pool's memory of what was asked for lately."""

    def __init__(self, rules: ScaleRules) -> None:
        self.rules = rules
        self._asked: deque[tuple[float, Demand]] = deque()

    def decide(self, sample: Sample) -> Decision:
        """Take a sample in and say how many engines there should be now."""
        rules = self.rules
        asked = demand(rules, sample)
        self._asked.append((sample.at_s, asked))
        while self._asked[0][0] < sample.at_s - rules.down_after_s:
            self._asked.popleft()
        steady = min(each.replicas for at_s, each in self._asked if at_s >= sample.at_s - rules.up_after_s)
        recent = max(self._asked, key=lambda each: each[1].replicas)[1]
        now = sample.replicas
        if now == 0 and asked.replicas:
            wanted, reason = asked.replicas, asked.reason
        elif steady > now and self._watched_s(sample) >= rules.up_after_s:
            wanted, reason = steady, asked.reason
        elif asked.replicas == 0 and sample.idle_s >= rules.idle_after_s:
            wanted, reason = 0, asked.reason
        elif recent.replicas < now and self._watched_s(sample) >= rules.down_after_s:
            wanted = max(1, recent.replicas)
            reason = f"{wanted} were enough for {rules.down_after_s:.0f} s"
        else:
            wanted, reason = now, "the load fits"
        limited = min(max(wanted, rules.replicas_min), rules.replicas_max)
        if limited != wanted:
            limit = "replicas_min" if limited > wanted else "replicas_max"
            reason = f"{reason}; {limit} is {limited}"
        return Decision(limited, reason)

    def _watched_s(self, sample: Sample) -> float:
        return sample.at_s - self._asked[0][0]
