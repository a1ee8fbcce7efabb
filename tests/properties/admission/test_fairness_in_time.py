"""What the fair queue promises, in virtual time: the real dispatcher in front of model engines, by seed."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from benchmarks.rig import virtual
from benchmarks.rig.model_engine import Machine
from benchmarks.rig.pool_world import MODEL, Asked, Setting, World, widest_gap

from penstock.admission.fair_queue import OUTPUT_WEIGHT, PROMPT_WEIGHT, Urgency
from penstock.serving.dispatch import RESERVE

SEEDS = range(5)
PROMPT_MAX, OUTPUT_MAX = 400, 120


def flood(
    dice: random.Random,
    tenant: int,
    *,
    per_s: float,
    until_s: float,
    from_s: float = 0.0,
    weight: float = 1.0,
) -> list[Asked]:
    """Requests of one tenant, of all lengths, at a rate."""
    asked, at_s = [], from_s
    while (at_s := at_s + dice.expovariate(per_s)) < until_s:
        prompt = [(f"{tenant} at {at_s}", dice.randint(1, PROMPT_MAX))]
        asked.append(Asked(at_s, tenant, prompt, dice.randint(1, OUTPUT_MAX), weight))
    return asked


def play(seed: int, trace: list[Asked], **setting: object) -> World:
    """Run a trace; nobody is refused, so that all of it can be told apart."""
    patient = {"waiting_max": 100_000, "wait_max_s": 3600.0, **setting}
    world = World(Setting(**patient), seed, keep_moments=True)  # type: ignore[arg-type]
    virtual.run(world.play(trace))
    return world


def bound(world: World, least_weight: float = 1.0) -> float:
    """Theorem 4.4 of the paper: twice what a prompt, or all that runs at once, may count."""
    places = world.setting.engines * world.setting.machine.batch_max
    return (
        2 * max(PROMPT_WEIGHT * PROMPT_MAX, places * (PROMPT_MAX + OUTPUT_WEIGHT * OUTPUT_MAX)) / least_weight
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_backlogged_tenants_are_served_alike_within_the_bound(seed: int) -> None:
    dice = random.Random(seed)
    tenants = dice.randint(2, 5)
    trace = [
        each
        for tenant in range(tenants)
        for each in flood(dice, tenant, per_s=dice.choice([4, 8, 30]), until_s=25, from_s=dice.uniform(0, 8))
    ]
    world = play(seed, trace, engines=dice.randint(1, 3))
    gaps = [widest_gap(world.moments, one, other) for one, other in combinations(range(tenants), 2)]
    assert max(gaps) <= bound(world)
    # Not for want of a backlog: whoever is told apart was served far more than the bound.
    assert max(world.service.values()) > bound(world) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_share_a_busy_pool_as_plans_say(seed: int) -> None:
    dice = random.Random(seed)
    weights = {1: 1.0, 2: 2.0, 3: 4.0}
    trace = [
        each
        for tenant, weight in weights.items()
        for each in flood(dice, tenant, per_s=12, until_s=30, weight=weight)
    ]
    world = play(seed, trace)
    for one, other in combinations(weights, 2):
        assert widest_gap(world.moments, one, other) <= bound(world)
    at_end = next(moment for moment in reversed(world.moments) if moment.backlogged == set(weights))
    taken = {tenant: at_end.service[tenant] * weight for tenant, weight in weights.items()}
    assert 1.7 < taken[2] / taken[1] < 2.3
    assert 3.4 < taken[3] / taken[1] < 4.6


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_waits_beside_free_places_but_those_that_are_kept_or_of_engines_that_read(seed: int) -> None:
    dice = random.Random(seed)
    idle: list[str] = []

    def check(world: World) -> None:
        targets = world.directory.all_targets()
        free = sum(target.window.size - target.in_flight for target in targets)
        waiting, _ = world.dispatcher.waiting(MODEL)
        calm = [each for each in targets if each.unread_tokens < 1 and each.window.has_room(each.in_flight)]
        kept = max(1, sum(target.window.size for target in targets) // RESERVE)
        if waiting and calm and free > kept:
            idle.append(f"{waiting} wait and {free} places are free")

    world = World(Setting(engines=2, waiting_max=10_000, wait_max_s=3600), seed, check)
    virtual.run(world.play([*flood(dice, 1, per_s=15, until_s=30), *flood(dice, 2, per_s=1, until_s=30)]))
    assert idle == []


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_is_served_in_the_end_and_no_counter_is_below_zero(seed: int) -> None:
    dice = random.Random(seed)
    trace = flood(dice, 1, per_s=20, until_s=20) + flood(dice, 2, per_s=1, until_s=20)
    for each in trace:
        each.urgency = dice.choice([Urgency.INTERACTIVE, Urgency.INTERACTIVE, Urgency.BATCH])
    negative: list[float] = []

    def check(world: World) -> None:
        queue = world.dispatcher._queues[MODEL]
        negative.extend(c for t in (1, 2) for u in Urgency if (c := queue.counter(t, u)) < 0)

    world = World(Setting(waiting_max=10_000, wait_max_s=3600), seed, check)
    asked = virtual.run(world.play(trace))
    assert all(each.done_s is not None for each in asked)
    assert negative == []
    assert world.dispatcher.waiting(MODEL) == (0, 0)
    assert all(target.in_flight == 0 for target in world.directory.all_targets())
    assert all(abs(target.unread_tokens) < 1e-6 for target in world.directory.all_targets())


@pytest.mark.parametrize("seed", SEEDS)
def test_idle_time_earns_no_credit(seed: int) -> None:
    """A tenant that was away for an hour's worth of service shares with the others, and no more."""
    dice = random.Random(seed)
    busy = flood(dice, 1, per_s=20, until_s=60)
    back = flood(dice, 2, per_s=20, until_s=60, from_s=35)
    world = play(seed, busy + back)
    assert widest_gap(world.moments, 1, 2) <= bound(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_had_a_quiet_pool_for_itself_is_not_starved_by_a_newcomer(seed: int) -> None:
    dice = random.Random(seed)
    alone = flood(dice, 1, per_s=0.5, until_s=100)
    both = flood(dice, 1, per_s=20, until_s=125, from_s=100) + flood(
        dice, 2, per_s=20, until_s=125, from_s=100
    )
    world = play(seed, alone + both)
    assert widest_gap(world.moments, 1, 2) <= bound(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_flood_leaves_the_others_first_tokens_alone(seed: int) -> None:
    dice = random.Random(seed)
    chats = [each for tenant in (2, 3, 4) for each in flood(dice, tenant, per_s=0.3, until_s=60)]
    heavy = flood(dice, 1, per_s=40, until_s=60)
    machine = Machine(batch_max=32)

    def p90_s(trace: list[Asked], *, fair: bool) -> float:
        for each in trace:
            each.first_s = None
        world = play(seed, trace, machine=machine, fair=fair)
        assert world.moments
        firsts = sorted(each.first_s for each in trace if each.tenant != 1 and each.first_s is not None)
        return firsts[int(len(firsts) * 0.9)]

    alone_s = p90_s(chats, fair=True)
    assert p90_s(chats + heavy, fair=True) <= 3 * alone_s
    assert p90_s(chats + heavy, fair=False) > 20 * alone_s
