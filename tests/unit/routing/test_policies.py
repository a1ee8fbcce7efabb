from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from penstock.routing import affinity, least_load, power_of_two
from penstock.routing.policy import Hint, Policy, pressure


@dataclass
class Engine:
    id: str
    load: float = 0.0
    capacity: float = 16.0


def engines(*loads: float) -> list[Engine]:
    return [Engine(f"engine-{number}", load) for number, load in enumerate(loads)]


ALL: list[Policy] = [least_load.choose, power_of_two.choose, affinity.by_prefix, affinity.by_session]
HINTS = [Hint(), Hint(prefix=b"p"), Hint(session=b"s"), Hint(prefix=b"p", session=b"s")]


@pytest.mark.parametrize("choose", ALL)
@pytest.mark.parametrize("hint", HINTS)
def test_each_picks_one_of_those_given(choose: Policy, hint: Hint) -> None:
    dice = random.Random(1)
    for count in (1, 2, 5):
        pool = engines(*(dice.uniform(0, 20) for _ in range(count)))
        assert choose(pool, hint, dice) in pool


def test_least_load_compares_by_how_full_they_are() -> None:
    large, small = Engine("large", load=20, capacity=64), Engine("small", load=8, capacity=8)
    assert least_load.choose([small, large], Hint(), random.Random(1)) is large


def test_power_of_two_avoids_the_fullest_and_spreads_the_rest() -> None:
    dice = random.Random(1)
    pool = engines(1, 1, 1, 50)
    picked = Counter(power_of_two.choose(pool, Hint(), dice).id for _ in range(600))
    assert "engine-3" not in picked
    assert min(picked.values()) > 100


def test_the_same_beginning_goes_to_the_same_engine_and_others_spread() -> None:
    dice = random.Random(1)
    pool = engines(0, 0, 0, 0)
    homes = {
        key: affinity.by_prefix(pool, Hint(prefix=key), dice).id for key in (bytes([n]) for n in range(200))
    }
    for key, home in homes.items():
        assert affinity.by_prefix(list(reversed(pool)), Hint(prefix=key), dice).id == home
    assert min(Counter(homes.values()).values()) > 25


def test_an_engine_that_goes_moves_only_its_own_keys() -> None:
    dice = random.Random(1)
    pool = engines(0, 0, 0, 0)
    keys = [bytes([n]) for n in range(200)]
    before = {key: affinity.by_prefix(pool, Hint(prefix=key), dice).id for key in keys}
    after = {key: affinity.by_prefix(pool[:3], Hint(prefix=key), dice).id for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != "engine-3")


def test_a_favourite_that_is_too_full_is_passed_over_and_imbalance_stays_bounded() -> None:
    dice = random.Random(1)
    pool = engines(0, 0, 0, 0)
    for _ in range(400):
        affinity.by_prefix(pool, Hint(prefix=b"everybody's"), dice).load += 0.1  # type: ignore[attr-defined]
    pressures = [pressure(each) for each in pool]
    average = sum(pressures) / 4
    assert max(pressures) <= max(affinity.SLACK, average * affinity.BALANCE) + 0.1 / 16


def test_a_session_outweighs_the_beginning() -> None:
    dice = random.Random(1)
    pool = engines(0, 0, 0, 0)
    session = affinity.by_session(pool, Hint(session=b"s"), dice)
    for n in range(50):
        assert affinity.by_session(pool, Hint(prefix=bytes([n]), session=b"s"), dice) is session


def test_an_adapter_goes_to_one_engine_whoever_asks_and_to_the_next_when_that_is_full() -> None:
    dice = random.Random(1)
    pool = engines(0, 0, 0, 0)
    hints = [Hint(prefix=bytes([n]), session=bytes([n]), adapter=b"tone") for n in range(20)]
    homes = {affinity.by_adapter(pool, hint, dice).id for hint in hints}
    assert len(homes) == 1
    next(engine for engine in pool if engine.id in homes).load = 1000.0  # type: ignore[attr-defined]
    assert affinity.by_adapter(pool, hints[0], dice).id not in homes
