"""From the engines a pool has to those it should have: pure, one step at a time.

A new version comes up beside the old one, which goes on serving until as many new engines are ready as are
wanted; so a version that cannot start replaces nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_engines.replica import ReplicaState


@dataclass(frozen=True)
class Present:
    """One engine there is."""

    id: str
    version: int
    state: ReplicaState
    running: int = 0
    """Requests it works on."""
    refused: bool = False
    """It cannot be run as described; starting another one like it would end the same way."""
    can_sleep: bool = False
    """Whether it may sleep (on) instead of being stopped."""


@dataclass(frozen=True)
class Plan:
    """What to do now."""

    start: int
    """So many engines of the wanted version, as far as they fit."""
    stop: tuple[str, ...]
    """These, draining first."""
    spare: tuple[str, ...]
    """These next, if a new one has no place otherwise: the old version's, the least missed first."""
    sleep: tuple[str, ...] = ()
    """These sleep instead of being stopped: the last one of a pool that nobody asks for."""
    wake: tuple[str, ...] = ()
    """These wake up instead of others being started."""


def plan(wanted: int, version: int, present: Sequence[Present]) -> Plan:
    """Say what brings a pool to `wanted` engines of `version`."""
    alive = [one for one in present if one.state in {ReplicaState.STARTING, ReplicaState.READY}]
    current = [one for one in alive if one.version == version]
    old = [one for one in alive if one.version != version]
    ready = sum(one.state is ReplicaState.READY for one in current)
    refused = any(one.refused and one.version == version for one in present)
    start = 0 if refused else max(0, wanted - len(current))
    asleep = [one for one in present if one.state is ReplicaState.ASLEEP]
    wake = [one for one in asleep if one.version == version][:start]
    start -= len(wake)
    surplus = _least_missed(current)[: max(0, len(current) - wanted)]
    sleepers = [one for one in asleep if one.version == version and one.can_sleep and not wanted][:1]
    tired = [one for one in surplus if one.can_sleep and not wanted and not sleepers][-1:]
    surplus = [one for one in surplus if one not in tired]
    surplus += [one for one in asleep if one not in wake and one not in sleepers]
    keep_old = max(0, wanted - ready)
    retired = _least_missed(old)[: max(0, len(old) - keep_old)]
    spare = [one for one in _least_missed(old) if one not in retired] if start else []
    return Plan(
        start=start,
        stop=tuple(one.id for one in (*surplus, *retired)),
        spare=tuple(one.id for one in spare),
        sleep=tuple(one.id for one in tired),
        wake=tuple(one.id for one in wake),
    )


def _least_missed(engines: Sequence[Present]) -> list[Present]:
    """Those first that do not serve yet, then those with the least to do, then the youngest."""
    youngest_first = list(reversed(engines))
    return sorted(youngest_first, key=lambda one: (one.state is ReplicaState.READY, one.running))
