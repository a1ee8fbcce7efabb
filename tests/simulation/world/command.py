"""Running seeds: many, or one with everything that happened in it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable

from world.mutants import MUTANTS, mutated
from world.plan import plan
from world.shrink import play, story
from world.substitutes import substituted


def first_failure(seeds: Iterable[int]) -> tuple[int | None, str]:
    """The first seed that fails and what it says; None when none does."""
    for seed in seeds:
        if problems := play(plan(seed)).problems:
            return seed, problems[0]
    return None, ""


def main() -> None:
    """Read the command line and run what it says."""
    parser = argparse.ArgumentParser(prog="python tests/simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed, with its story")
    parser.add_argument("--seeds", default="0-4999", help="from-to, both included (default %(default)s)")
    parser.add_argument(
        "--mutants", nargs="?", const="", help="which seed finds each known bug (of that name)"
    )
    chosen = parser.parse_args()
    with substituted():
        if chosen.mutants is not None:
            find_mutants(chosen.mutants)
        elif chosen.seed is not None:
            world = play(plan(chosen.seed), tracing=True)
            print("\n".join(world.trace))
            print(story(plan(chosen.seed)) if world.problems else f"seed {chosen.seed}: everything held")
            sys.exit(bool(world.problems))
        else:
            first, _, last = chosen.seeds.partition("-")
            sys.exit(run_many(range(int(first), int(last or first) + 1)))


def run_many(seeds: range) -> bool:
    """Run seeds and print those that fail, at most 20; whether any did."""
    begun_s = time.process_time()
    count = failed = 0
    for seed in seeds:
        count += 1
        if problems := play(plan(seed)).problems:
            failed += 1
            print(f"seed {seed}: {problems[0]}\n  run it again: python tests/simulation --seed {seed}")
            if failed == 20:
                break
    print(f"{count} seeds in {time.process_time() - begun_s:.1f} s of CPU, {failed} failed")
    return failed > 0


def find_mutants(name: str) -> None:
    """Say which seed finds each known bug."""
    for mutant in [each for each in MUTANTS if name in each.name]:
        begun_s = time.process_time()
        with mutated(mutant):
            seed, why = first_failure(mutant.seeds(3000))
        print(f"{mutant.name}: seed {seed} ({time.process_time() - begun_s:.1f} s): {why[:200]}")
