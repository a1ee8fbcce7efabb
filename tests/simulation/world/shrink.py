"""Making a failing plan smaller, and telling its story."""

from __future__ import annotations

import gc
from collections.abc import Callable

from world.plan import Plan
from world.simulation import Simulation

TRIES_MAX = 400
COLLECT_EVERY = 50


def play(made: Plan, *, tracing: bool = False) -> Simulation:
    """Play one plan; `problems` of what is returned says what was wrong."""
    world = Simulation(made, tracing=tracing)
    world.run()
    if made.seed % COLLECT_EVERY == 0:
        gc.collect()
    return world


def shrunk(made: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Take requests and faults out as long as the plan still fails, halves first, then one by one."""
    tries = 0
    for what in ("requests", "faults", "requests"):
        size = max(1, len(getattr(made, what)) // 2)
        while size:
            place = 0
            while place < len(getattr(made, what)) and tries < TRIES_MAX:
                smaller = made.without(**{what: range(place, place + size)})
                tries += 1
                if fails(smaller):
                    made = smaller
                else:
                    place += size
            size //= 2
    return made


def story(made: Plan) -> str:
    """What happens in the smallest plan that still fails, and how to run the whole one again."""
    smallest = shrunk(made, lambda smaller: bool(play(smaller).problems))
    world = play(smallest, tracing=True)
    return "\n".join(
        [
            f"seed {made.seed} fails; run it again: python tests/simulation --seed {made.seed}",
            f"the smallest that still fails has {len(smallest.requests)} of {len(made.requests)} requests "
            f"and {len(smallest.faults)} of {len(made.faults)} faults:",
            f"{smallest.options}",
            *map(str, smallest.requests),
            *world.trace,
            "what is wrong:",
            *world.problems,
        ]
    )
