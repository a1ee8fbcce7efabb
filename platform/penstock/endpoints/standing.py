"""How an endpoint stands, put together from what its owner wants and from how its model's pool stands."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from penstock.endpoints.serverless import Endpoint
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
    DELETING = "deleting"
    """It takes no more requests, and its name is free; its last minute is being ended."""


TAKING = frozenset({"ready", "asleep", "starting", "draining"})
"""States of a pool in which it takes requests: at once, or after a wait."""


class EndpointStanding(msgspec.Struct, frozen=True):
    """A state, and why it is that one."""

    state: State
    reason: str | None = None

    @property
    def told(self) -> str:
        """Both in a line."""
        return f"{self.state.value}: {self.reason}" if self.reason else self.state.value


def standing_of(suspended: str | None, pool: Standing, problem: str | None = None) -> EndpointStanding:
    """Say how an endpoint stands that was not deleted; `problem` is why its model has no pool."""
    if suspended is not None:
        return EndpointStanding(State.SUSPENDED, suspended)
    if pool.state in TAKING:
        reason = None if pool.state == "ready" else f"the model is {pool}"
        return EndpointStanding(State.ONLINE, reason)
    if pool.state != "unknown":
        why = f": {pool.reason}" if pool.reason else ""
        return EndpointStanding(State.UNHEALTHY, f"no engine of the model runs ({pool.state}{why})")
    if problem is not None:
        return EndpointStanding(State.UNHEALTHY, f"the model cannot be served: {problem}")
    return EndpointStanding(State.CREATING, "the model's pool is being made")


def standing(endpoint: Endpoint, pool: Standing) -> EndpointStanding:
    """Say how an endpoint stands."""
    if endpoint.deleted_at is not None:
        return EndpointStanding(
            State.DELETING, "it takes no more requests; those that run end, and so do its minutes"
        )
    return standing_of(endpoint.suspended, pool, endpoint.problem)
