"""How a pool is sized, and how requests find its engines: what an operator sets."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from penstock_engines.autoscale import ScaleRules


class PolicyName(StrEnum):
    """The routing policies there are; the value is how settings name them."""

    LEAST_LOAD = "least_load"
    """The engine with the fewest tokens to go."""
    POWER_OF_TWO = "power_of_two"
    """The better of two drawn at random: nearly as good, and gateways do not all run to the same engine."""
    PREFIX_AFFINITY = "prefix_affinity"
    """The engine that has seen the prompt's beginning, unless it has too much to do."""
    SESSION_AFFINITY = "session_affinity"
    """The engine that has the session, unless it has too much to do."""


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a pool is sized and how requests find its engines."""

    scale: ScaleRules = ScaleRules()
    policy: PolicyName = PolicyName.PREFIX_AFFINITY
    shared_prefix_cache: bool = False
    """Whether organisations share cached prompt beginnings; they can then tell what others asked before.

    A card that says so itself needs no setting here.
    """
    wait_max_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    """How long a request waits for its turn, or for the model to wake."""
    waiting_max: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    """Requests that may wait in one gateway."""
    sleep: bool = True
    """Whether the last engine on a GPU sleeps when nobody asks for it; otherwise it is stopped."""
    instance_type: str | None = None
    """The slice of hardware that each engine takes whole; by default only what it needs."""
    hedge_after_ms: Annotated[int, Meta(ge=1, le=600_000)] | None = None
    """How long an engine may bring no first byte of a stream until a second one is asked as well."""

    @property
    def sleeps(self) -> bool:
        """Whether engines that can sleep are to be able to."""
        return self.sleep and not self.scale.replicas_min and bool(self.scale.replicas_max)

    @property
    def hedge_after_s(self) -> float | None:
        """The same in seconds."""
        return self.hedge_after_ms / 1000 if self.hedge_after_ms is not None else None
