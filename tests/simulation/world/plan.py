"""What a seed decides beforehand: who asks for what and when, and what goes wrong and when.

A plan is plain data, so that a failing one can be made smaller: requests and faults are taken out of it as
long as it still fails.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec
from world.client import Asked
from world.engine import Ask

ORGANISATIONS = 4
PREPAID = {2: (2, 0), 3: (3, 1), 4: (4, 0)}
"""Organisations with credit, and the wallet that pays: 3's is its project's. The first owes what it uses."""
STRICT = (3, 4)
"""Never below zero; 2 may go below by a stated bound."""


class Fault(msgspec.Struct, frozen=True):
    """Something that goes wrong."""

    at_s: float
    kind: str
    target: int = 0
    for_s: float = 0.0
    amount: float = 0.0


class TopUp(msgspec.Struct, frozen=True):
    """Credit that a prepaid organisation gets."""

    at_s: float
    organisation_id: int
    nano_usd: int
    promotional: bool = False


class Options(msgspec.Struct, frozen=True):
    """How the platform is set up in a run."""

    hosts: int
    gateways: int
    """Per host."""
    engines: int
    part_bytes: int
    reserve_bytes: int
    batch_frames: int
    keep_s: float
    grace_s: float
    first_byte_s: float
    stall_s: float
    begin_minute: int
    """Where in the hour and day the run begins."""


class Plan(msgspec.Struct, frozen=True):
    """A whole run."""

    seed: int
    options: Options
    requests: list[Asked]
    faults: list[Fault]
    top_ups: list[TopUp]

    def without(self, *, requests: Any = (), faults: Any = ()) -> Plan:
        """The same run without some of what happens in it (by position)."""
        return Plan(
            self.seed,
            self.options,
            [each for place, each in enumerate(self.requests) if place not in requests],
            [each for place, each in enumerate(self.faults) if place not in faults],
            self.top_ups,
        )


GATEWAY_FAULTS = (
    "kill_gateway",
    "stop_gateway",
    "freeze_gateway",
    "second_shipper",
    "kill_at_append",
    "kill_at_change",
    "kill_at_slot",
)
TIGHT_FAULTS = ("kill_at_append", "kill_at_append", "kill_gateway", "power_cut", "cut_after_commit")
HOST_FAULTS = (
    "power_cut",
    "power_cut_at_append",
    "power_cut_at_append",
    "disk_full",
    "disk_fails",
    "clock_jump",
)
DATABASE_FAULTS = (
    "database_away",
    "database_frozen",
    "database_slow",
    "cut_connections",
    "cut_after_commit",
    "cut_after_commit",
    "cut_before_commit",
    "restore",
)
ENGINE_FAULTS = ("engine_dies", "engine_stalls")


def plan(seed: int) -> Plan:
    """Everything that a seed decides."""
    rng = random.Random(seed)
    # In some worlds everybody draws on one small wallet: there is no room for a nano-dollar too much.
    tight = rng.random() < 0.15
    engines = rng.choice((1, 2, 2, 3))
    options = Options(
        hosts=rng.choice((1, 1, 2)),
        gateways=rng.choice((2, 3) if tight else (1, 2, 2, 3)),
        engines=engines,
        part_bytes=rng.choice((2_000, 6_000, 1_000_000)),
        reserve_bytes=rng.choice((1_000, 4_000, 100_000)),
        batch_frames=rng.choice((1, 3, 1000)),
        keep_s=rng.choice((20.0, 172_800.0)),
        grace_s=rng.choice((0.0, 1.0, 10.0)),
        first_byte_s=rng.choice((1.0, 10.0)),
        stall_s=rng.choice((1.0, 5.0)),
        begin_minute=rng.choice((0, 58, 59, 23 * 60 + 59)),
    )
    span_s = rng.choice((1.5, 5.0, 15.0))
    faults = sorted(
        (fault(rng, span_s, tight) for _ in range(rng.choice((0, 1, 2, 3, 5)))), key=lambda each: each.at_s
    )
    crowd = [*range(1, ORGANISATIONS + 1), *[rng.randint(1, ORGANISATIONS)] * rng.choice((0, 8))]
    if tight:
        crowd = [rng.choice(list(PREPAID))]
    lengths = rng.choice(((1, 3, 10, 40, 200), (1, 3, 10, 40, 200), (40, 1600)))
    if any(each.kind == "kill_at_slot" for each in faults):
        lengths = (40, 400, 1600)
    count = 20 if tight else rng.randint(4, 20)
    requests = [request(rng, number, span_s, crowd, lengths) for number in range(count)]
    amounts = rng.choice(((50_000, 150_000), (200_000, 500_000), (30_000_000, 1_000_000_000)))
    if tight:
        amounts = (100_000, 200_000, 400_000)
    top_ups = [TopUp(0.0, organisation_id, rng.choice(amounts)) for organisation_id in PREPAID]
    for _ in range(rng.randint(0, 2)):
        at_s = round(rng.uniform(0, span_s), 4)
        top_ups.append(TopUp(at_s, rng.choice(list(PREPAID)), rng.choice(amounts), rng.random() < 0.5))
    return Plan(seed, options, sorted(requests, key=lambda each: each.at_s), faults, top_ups)


def request(
    rng: random.Random, number: int, span_s: float, crowd: list[int], lengths: tuple[int, ...]
) -> Asked:
    """One client and what it asks."""
    n = 2 if rng.random() < 0.1 else 1
    output = rng.choice(lengths)
    prompt = rng.randint(1, 500)
    trouble = (
        rng.choice(("error", "cut", "no_usage", "refuse", "fail", "abort")) if rng.random() < 0.15 else ""
    )
    ask = Ask(
        prompt_tokens=prompt,
        cached_tokens=0 if n > 1 else rng.choice((0, rng.randint(0, prompt))),
        output_tokens=output,
        step_tokens=1 if output < 10 else max(1, output // rng.choice((10, 40, 100))),
        step_s=rng.choice((0.005, 0.05, 0.4)),
        first_s=rng.choice((0.01, 0.3)),
        n=n,
        max_tokens=output,
        stream=rng.random() < 0.8,
        trouble=trouble,
        trouble_at=rng.randint(0, output) if trouble else 0,
    )
    return Asked(
        number=number,
        at_s=round(rng.uniform(0.1, span_s), 4),
        organisation_id=rng.choice(crowd),
        ask=ask,
        usage_view=rng.choice(("HIDDEN", "FINAL", "CONTINUOUS")),
        leave_after_s=round(rng.uniform(0, 3), 4) if rng.random() < 0.2 else None,
        slow_s=rng.choice((0.01, 0.3)) if rng.random() < 0.15 else 0.0,
    )


def fault(rng: random.Random, span_s: float, options: Options) -> Fault:
    """One thing that goes wrong."""
    kind = rng.choice(
        rng.choice((GATEWAY_FAULTS, GATEWAY_FAULTS, HOST_FAULTS, DATABASE_FAULTS, ENGINE_FAULTS))
    )
    for_s = round(rng.choice((0.05, 1.0, 10.0)) * rng.uniform(0.5, 1.5), 4)
    if kind == "clock_jump":
        amount = rng.choice((-3600.0, -1.0, 1.0, 3600.0))
    elif kind in {"kill_at_change", "kill_at_slot"}:
        amount = float(rng.randint(1, 12))
    elif kind == "database_slow":
        amount = rng.choice((0.1, 2.0))
    else:
        amount = float(rng.randint(1, 4))
    return Fault(round(rng.uniform(0.05, span_s * 1.2), 4), kind, rng.randint(0, 5), for_s, amount)
