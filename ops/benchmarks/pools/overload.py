"""Ten times what an engine can do: what is still done, how quickly the rest is refused, at what cost."""

from __future__ import annotations

import asyncio
import contextlib

from benchmarks.figures import Figure
from benchmarks.registry import Run
from benchmarks.rig import processes, servers
from benchmarks.rig.load import Loaded, Plan
from benchmarks.rig.ways import send

from penstock_engines.pool_settings import PoolSettings

BATCH = 16
ENGINE_TOKENS_PER_S = 100.0
TOKENS = 32
CAPACITY_PER_S = BATCH * ENGINE_TOKENS_PER_S / TOKENS
"""Requests: what the engine's places can do."""
WAITING_MAX = 64
CONNECTIONS = 400
OFFERED = (0.5, 1.0, 2.0, 5.0, 10.0)
PHASE_S, PHASE_FULL_S = 6.0, 30.0
GOODPUT_BAR = 90.0
REFUSAL_BAR_MS = 5.0
MEMORY_BAR_MB = 32.0


async def through_gateway(run: Run) -> list[Figure]:
    """Offer more and more through the real gateway, in front of a simulated engine."""
    lasts_s = PHASE_FULL_S if run.full else PHASE_S
    folder = run.folder / "overload"
    folder.mkdir()
    loads: dict[float, Loaded] = {}
    async with contextlib.AsyncExitStack() as stack:
        with run.steps.step("gateway and simulated engine for overload"):
            model = servers.stand_ins(1)[0]
            engine = servers.simulated_engine(folder, "engine", model, tokens_per_s=ENGINE_TOKENS_PER_S)
            await stack.enter_async_context(engine)
            gateway = await stack.enter_async_context(servers.gateway(folder))
            await gateway.make_pool(model, PoolSettings(waiting_max=WAITING_MAX))
            await gateway.register(model, folder / "engine.sock", batch_max=BATCH)
        pid = gateway.child.pid
        before_mb = 0.0
        for times in OFFERED:
            with run.steps.step(f"{times:g} times what the engine can do"):
                plan = Plan(
                    requests=1_000_000,
                    connections=CONNECTIONS,
                    tokens=TOKENS,
                    streamed=True,
                    warm_up=0,
                    rate_per_s=times * CAPACITY_PER_S,
                    count_failures=True,
                    lasts_s=lasts_s,
                    watch=[pid],
                )
                loads[times] = await send(gateway.door(model), plan)
                await asyncio.sleep(1.0)
            before_mb = before_mb or processes.resident_mb(pid)
        grown_mb = processes.resident_mb(pid) - before_mb
    return _figures(loads, grown_mb)


def _figures(loads: dict[float, Loaded], grown_mb: float) -> list[Figure]:
    goodput = {times: loaded.answered * TOKENS / loaded.wall_s for times, loaded in loads.items()}
    peak = max(goodput.values())
    most = loads[max(loads)]
    figures = [
        Figure(
            name=f"pools.overload.goodput_{times:g}x",
            figure=round(100 * tokens / peak, 1),
            unit="% of peak",
            bar=GOODPUT_BAR if times == max(loads) else None,
            at_least=True,
            note=f"{tokens:,.0f} tokens/s; {loads[times].refused:,} of "
            f"{loads[times].refused + loads[times].answered:,} refused",
        )
        for times, tokens in goodput.items()
    ]
    # At capacity as many are answered and none refused: the rest of the time went into refusing.
    full = loads[1.0]
    spent_s = most.cpu_s - full.cpu_s * most.answered / max(1, full.answered)
    others = most.failed - most.refused
    return [
        *figures,
        Figure(
            name="pools.overload.refusal_p99",
            figure=round(most.refused_p99_ms, 2),
            unit="ms",
            bar=REFUSAL_BAR_MS,
            note=f"status 429, p50 {most.refused_p50_ms:.2f} ms; {others} failed otherwise",
        ),
        Figure(
            name="pools.overload.refusal_cpu",
            figure=round(1e6 * spent_s / max(1, most.refused), 1),
            unit="us",
            note="gateway's CPU time per refusal",
        ),
        Figure(
            name="pools.overload.memory",
            figure=round(grown_mb, 1),
            unit="MB",
            bar=MEMORY_BAR_MB,
            note="that the gateway grew by from half to ten times the capacity",
        ),
    ]
