"""The routing policy that is always right enough: the engine with the fewest of our requests."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from penstock.routing.directory import Target


def choose(targets: Sequence[Target], tried: Collection[Target]) -> Target | None:
    """Pick the least loaded engine that was not tried yet; of equals the first. None when all were tried."""
    untried = [target for target in targets if target not in tried]
    return min(untried, key=lambda target: target.in_flight, default=None)
