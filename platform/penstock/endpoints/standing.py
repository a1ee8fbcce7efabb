"""How an endpoint stands, put together from what its owner wants and from how its model's pool stands."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from penstock.routing.directory import Standing


class State(StrEnum):
    """The states of an endpoint; the value is what people read."""

    CREATING = "creating"
    """Its model's pool is being made."""
    ONLINE = "online"
    """It takes requests; where its model sleeps, they wake it. Its minutes are charged."""
    SUSPENDED = "suspended"
    """Its owner, or whoever runs the platform, stopped it."""
    UNHEALTHY = "unhealthy"
    """It should take requests and cannot."""


class EndpointStanding(msgspec.Struct, frozen=True):
    """A state, and why it is that one."""

    state: State
    reason: str | None = None


def standing_of(suspended: str | None, pool: Standing) -> EndpointStanding:
    """Say how an endpoint stands."""
    if suspended is not None:
        return EndpointStanding(State.SUSPENDED, suspended)
    if pool.state in {"ready", "asleep", "starting", "draining"}:
        reason = None if pool.state == "ready" else f"the model is {pool}"
        return EndpointStanding(State.ONLINE, reason)
    if pool.state == "unknown":
        return EndpointStanding(State.CREATING, "the model's pool is being made")
    return EndpointStanding(State.UNHEALTHY, f"no engine of the model runs ({pool.state})")
