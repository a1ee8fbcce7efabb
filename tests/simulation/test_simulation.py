"""The whole way of a request's money in thousands of invented worlds: whatever goes wrong, the bill is right.

`python tests/simulation` runs more seeds, `--seed N` tells one seed's story.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from world.mutants import MUTANTS, Mutant, mutated
from world.plan import plan
from world.shrink import play, shrunk, story

FIRST, _, LAST = os.environ.get("PENSTOCK_SIMULATION_SEEDS", "0-1499").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)
BLOCK = 250
BLOCKS = [SEEDS[start : start + BLOCK] for start in range(0, len(SEEDS), BLOCK)]


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_whatever_goes_wrong_the_bill_is_right(simulated: None, seeds: range) -> None:
    for seed in seeds:
        if play(plan(seed)).problems:
            pytest.fail(story(plan(seed)), pytrace=False)


def test_the_worlds_are_eventful_enough(simulated: None) -> None:
    """That nothing is found means little where nothing happens."""
    happened: set[str] = set()
    outcomes: set[str] = set()
    ends: set[str] = set()
    for seed in range(120):
        world = play(plan(seed))
        happened |= {fault.kind for fault in world.plan.faults}
        outcomes |= {record.outcome.value for _, record, _ in world.records.values()}
        ends |= {client.end.name for client in world.clients}
    assert len(happened) >= 16
    assert outcomes >= {"done", "client_gone", "engine_failed", "stalled", "shutdown"}
    assert ends >= {"ACKNOWLEDGED", "FAILED", "BROKEN", "LEFT", "REFUSED"}


def test_a_seed_is_the_same_run_everywhere(simulated: None) -> None:
    """Also where Python hashes otherwise: a failing seed can be run again."""
    folder = Path(__file__).parent
    stories = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, str(folder), "--seed", "23"], env=environment, capture_output=True, check=False
        )
        stories.add(done.stdout)
    told = "\n".join([*play(plan(23), tracing=True).trace, "seed 23: everything held"])
    assert stories == {told.encode() + b"\n"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_known_bug_is_found(simulated: None, mutant: Mutant) -> None:
    with mutated(mutant):
        assert any(play(plan(seed)).problems for seed in mutant.seeds(1500)), "no seed finds it"


def test_a_failing_plan_is_made_smaller_and_told(simulated: None) -> None:
    mutant = next(each for each in MUTANTS if "leaves pays nothing" in each.name)
    with mutated(mutant):
        seed = next(seed for seed in range(1000) if play(plan(seed)).problems)
        smallest = shrunk(plan(seed), lambda smaller: bool(play(smaller).problems))
        told = story(plan(seed))
    assert len(smallest.requests) <= 2
    assert len(smallest.faults) <= 1
    assert f"python tests/simulation --seed {seed}" in told
    assert "ended in no record" in told
