"""The policy that is always right enough: the engine with the fewest tokens to go."""

from __future__ import annotations

import random
from collections.abc import Sequence

from penstock.routing.policy import Choice, Hint, pressure


def choose(candidates: Sequence[Choice], hint: Hint, dice: random.Random) -> Choice:  # noqa: ARG001
    """Pick the least full engine; of equals the first."""
    return min(candidates, key=pressure)
