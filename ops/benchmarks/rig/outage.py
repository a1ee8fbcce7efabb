"""Requests through a gateway whose PostgreSQL goes away for a while and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from benchmarks.figures import Unmeasurable
from benchmarks.rig import books, servers
from benchmarks.rig.load import Plan
from benchmarks.rig.ways import send

from penstock.local.steps import Steps

RATE_PER_S = 200.0
BEFORE_S = 3.0
AFTER_S = 15.0
DRAINED_WITHIN_S = 120.0


@dataclass(frozen=True)
class Endured:
    """What came of it."""

    requests: int
    failed: int
    failure: str
    """What the first that failed was told."""
    lost: int
    """Requests without a usage row afterwards; negative when there are too many rows."""
    drained_s: float
    """From PostgreSQL's first answer until it had all that ended before that, with requests going on."""


async def endure(folder: Path, outage_s: float, steps: Steps) -> Endured:
    """Ask steadily before, during and after; raises Unmeasurable."""
    async with contextlib.AsyncExitStack() as stack:
        with steps.step("PostgreSQL, Valkey, gateway and a simulated engine"):
            (model,) = servers.stand_ins(1)
            await stack.enter_async_context(servers.simulated_engine(folder, "outage", model))
            gateway = await stack.enter_async_context(servers.gateway(folder))
            await gateway.register(model, folder / "outage.sock")
        requests = int(RATE_PER_S * (BEFORE_S + outage_s + AFTER_S))
        plan = Plan(requests=requests, tokens=8, streamed=False, rate_per_s=RATE_PER_S, count_failures=True)
        longest_s = 2 * (BEFORE_S + outage_s + AFTER_S) + 60
        asking = asyncio.create_task(send(gateway.door(model), plan, longest_s=longest_s))
        stack.callback(asking.cancel)
        with steps.step(f"{outage_s:.0f} s without PostgreSQL, {RATE_PER_S:.0f} requests/s"):
            await asyncio.sleep(BEFORE_S)
            await gateway.database.stop()
            await asyncio.sleep(outage_s)
            await gateway.database.start()
        back_at, back_s = datetime.now(UTC), time.monotonic()
        connection = await asyncpg.connect(gateway.database.url)
        stack.push_async_callback(connection.close)

        async def drained() -> bool:
            query = "select exists (select from billing.usage_event where ended_at >= $1)"
            return bool(await connection.fetchval(query, back_at))

        with steps.step("the backlog, and requests that go on"):
            try:
                await books.until_true(drained, DRAINED_WITHIN_S)
            except TimeoutError:
                raise Unmeasurable(f"the backlog was not drained in {DRAINED_WITHIN_S:.0f} s") from None
            drained_s = time.monotonic() - back_s
            loaded = await asking
        answered = requests + plan.warm_up - loaded.failed

        async def all_there() -> bool:
            return int(await connection.fetchval("select count(*) from billing.usage_event")) >= answered

        with contextlib.suppress(TimeoutError):
            await books.until_true(all_there, 30)
        rows: int = await connection.fetchval("select count(*) from billing.usage_event")
        return Endured(requests, loaded.failed, loaded.failure, answered - rows, drained_s)
