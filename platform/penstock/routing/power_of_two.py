"""Two at random, the better of them: many gateways with stale news do not all run to the same engine.

Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from penstock.routing.policy import Choice, Hint, pressure


def choose(candidates: Sequence[Choice], hint: Hint, dice: random.Random) -> Choice:  # noqa: ARG001
    """Pick the less full of two engines."""
    if len(candidates) == 1:
        return candidates[0]
    return min(dice.sample(candidates, 2), key=pressure)
