"""A way to an engine (direct, or through a gateway), and how a load client is sent along it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from benchmarks.figures import Unmeasurable
from benchmarks.rig.load import Loaded, Plan

OPS = Path(__file__).parents[2]
LONGEST_S = 120.0


@dataclass(frozen=True)
class Door:
    """Where a load client knocks, and for which model."""

    model: str
    port: int = 0
    socket: Path | None = None
    key: str = ""


@dataclass(frozen=True)
class Way:
    """One way to the simulated engines: one that answers at once, one that is paced."""

    name: str
    quick: Door
    paced: Door
    watch: Sequence[int]
    """Roots of the process trees whose CPU time is this way's cost."""
    share: float = 1.0
    """Part of the usual number of requests, for a way that takes long."""
    carried: list[int] = field(default_factory=lambda: [0])
    """Requests sent this way so far."""


async def send(
    door: Door, plan: Plan, carried: list[int] | None = None, longest_s: float = LONGEST_S
) -> Loaded:
    """Run one load client to its end; raises Unmeasurable with what it said."""
    plan.model, plan.key, plan.port = door.model, door.key, door.port
    plan.socket = "" if door.socket is None else str(door.socket)
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.rig.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=OPS,
    )
    try:
        async with asyncio.timeout(longest_s):
            out, said = await client.communicate(msgspec.json.encode(plan))
    except TimeoutError:
        raise Unmeasurable(f"{plan.requests} requests were not answered within {longest_s:.0f} s") from None
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    if client.returncode:
        raise Unmeasurable(f"the load client failed: {said.decode(errors='replace').strip()[-1000:]}")
    if carried is not None:
        carried[0] += plan.requests + plan.warm_up
    return msgspec.json.decode(out, type=Loaded)
