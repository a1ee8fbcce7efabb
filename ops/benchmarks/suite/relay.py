"""What a gateway adds: CPU time, delay of the first chunk, lost throughput, memory.

All ways lead to the same simulated engine over loopback, 16 connections each, in interleaved rounds; figures
are medians over the rounds (differences and shares: of what was measured one after the other). CPU time is
user and system time of the gateway's whole process tree. Penstock runs as in production: one worker, key
check, routing, metering, the journal, shipping to PostgreSQL, logs; at the end Postgres must hold exactly one
usage row per request, or the benchmark fails.

    ns_cpu        per request that is not streamed (8 tokens)
    s8_cpu        per stream of 8 tokens, as fast as the engine can
    paced_cpu     per chunk of a stream paced 10 ms apart: (CPU per stream of 256 tokens - ns_cpu) / 256
    first_*       time to the first body byte of streams paced 10 ms apart; `added`: less the direct time
    throughput    tokens/s of 16 streams of 150 tokens through real vLLM, as a part of those asked directly
"""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.registry import Run
from benchmarks.rig import processes, servers
from benchmarks.rig.load import Plan
from benchmarks.rig.peers import peers
from benchmarks.rig.servers import Gateway
from benchmarks.rig.ways import Door, Way, send

ROUNDS = 3
FIRST_ROUNDS = 9
ENGINE_ROUNDS = 12
STREAM_TOKENS = 150
PACE_PER_S = 100.0
SHIPPING_S = 0.5

BARS = {"ns_cpu": 200.0, "s8_cpu": 330.0, "paced_cpu": 40.0}
ADDED_BARS_MS = {"p50": 1.0, "p99": 3.0}

Samples = dict[str, dict[str, list[float]]]


async def measure(run: Run) -> list[Figure]:
    """Take every figure of the relay."""
    async with contextlib.AsyncExitStack() as stack:
        with run.steps.step("PostgreSQL, Valkey, gateway and simulated engines"):
            quick, paced = servers.stand_ins(2)
            ports = (processes.free_port(), processes.free_port())
            pids = []
            for model, rate, port in ((quick, 0.0, ports[0]), (paced, PACE_PER_S, ports[1])):
                name = "paced" if rate else "quick"
                engine = servers.simulated_engine(run.folder, name, model, tokens_per_s=rate)
                await stack.enter_async_context(engine)
                engine = servers.simulated_engine(
                    run.folder, f"{name}-tcp", model, port=port, tokens_per_s=rate
                )
                pids.append((await stack.enter_async_context(engine)).pid)
            gateway = await stack.enter_async_context(servers.gateway(run.folder))
            await gateway.register(quick, run.folder / "quick.sock")
            await gateway.register(paced, run.folder / "paced.sock")
        direct = Way("direct", Door(quick, ports[0]), Door(paced, ports[1]), pids)
        penstock = Way("penstock", gateway.door(quick), gateway.door(paced), [gateway.child.pid])
        others, skipped = await peers(run, stack, direct)
        ways = [direct, penstock, *others]
        samples: Samples = defaultdict(lambda: defaultdict(list))
        for number in range(1, ROUNDS + 1):
            for way in ways:
                with run.steps.step(f"round {number} of {ROUNDS}: {way.name}"):
                    await _round(way, samples[way.name])
        with run.steps.step(f"{FIRST_ROUNDS} short rounds: first chunk"):
            for _ in range(FIRST_ROUNDS):
                for way in ways:
                    await _first_chunk(way, samples[way.name])
        figures = [figure for way in ways for figure in _figures(way, samples)]
        figures += await _through_vllm(run, gateway, penstock)
        memory_mb = processes.resident_mb(gateway.child.pid)
        figures.append(
            Figure(
                name="relay.penstock.memory",
                figure=memory_mb,
                unit="MB",
                bar=150.0,
                note="resident, after all of it",
            )
        )
        with run.steps.step(f"{penstock.carried[0]} usage rows in PostgreSQL"):
            await gateway.recorded(penstock.carried[0])
        return figures + skipped


async def _round(way: Way, samples: dict[str, list[float]]) -> None:
    """Take each cost of one way once."""

    async def cost_us(door: Door, plan: Plan) -> float:
        plan.requests = max(plan.connections, int(plan.requests * way.share))
        plan.watch = list(way.watch)
        loaded = await send(door, plan, way.carried)
        return loaded.cpu_s / loaded.requests * 1e6

    plan = Plan(requests=3000, tokens=8, streamed=False, settle_s=SHIPPING_S)
    whole_us = await cost_us(way.quick, plan)
    samples["ns_cpu"].append(whole_us)
    plan = Plan(requests=2000, tokens=8, streamed=True, settle_s=SHIPPING_S)
    samples["s8_cpu"].append(await cost_us(way.quick, plan))
    plan = Plan(requests=16, tokens=256, streamed=True, spread_s=1 / PACE_PER_S, warm_up=0)
    samples["paced_cpu"].append((await cost_us(way.paced, plan) - whole_us) / 256)


async def _first_chunk(way: Way, samples: dict[str, list[float]]) -> None:
    """Take the time to the first chunk of one way once: some 200 new streams a second."""
    tokens = 8
    plan = Plan(requests=192, tokens=tokens, streamed=True, spread_s=tokens / PACE_PER_S)
    loaded = await send(way.paced, plan, way.carried)
    samples["first_p50"].append(loaded.first_p50_ms)
    samples["first_p99"].append(loaded.first_p99_ms)


def _figures(way: Way, samples: Samples) -> list[Figure]:
    taken = samples[way.name]
    figures = []
    for name in ("ns_cpu", "s8_cpu", "paced_cpu"):
        figures.append(
            Figure(
                name=f"relay.{way.name}.{name}",
                figure=round(statistics.median(taken[name]), 1),
                unit="us",
                bar=BARS[name] if way.name == "penstock" else None,
                note="the engine's own; there is no gateway"
                if way.name == "direct"
                else _spread(taken[name]),
            )
        )
    for part, bar_ms in ADDED_BARS_MS.items():
        mine, direct = taken[f"first_{part}"], samples["direct"][f"first_{part}"]
        if way.name == "direct":
            name, shown, bar = f"first_{part}", mine, None
        else:
            shown = [one - other for one, other in zip(mine, direct, strict=True)]
            name, bar = f"first_{part}_added", bar_ms if way.name == "penstock" else None
        figures.append(
            Figure(
                name=f"relay.{way.name}.{name}",
                figure=round(statistics.median(shown), 3),
                unit="ms",
                bar=bar,
                note=_spread(shown),
            )
        )
    return figures


async def _through_vllm(run: Run, gateway: Gateway, penstock: Way) -> list[Figure]:
    """Compare token throughput through Penstock with that of the same vLLM asked directly."""
    folder = run.folder / "vllm"
    folder.mkdir()
    rates: dict[str, list[float]] = {"direct": [], "penstock": []}
    async with contextlib.AsyncExitStack() as stack:
        with run.steps.step("vLLM with the demo model"):
            replica = await stack.enter_async_context(servers.real_engine(folder))
            await gateway.register(servers.DEMO, replica.socket)
        doors = {
            "direct": Door(servers.DEMO, socket=Path(replica.socket)),
            "penstock": gateway.door(servers.DEMO),
        }
        with run.steps.step(f"{ENGINE_ROUNDS} short rounds: vLLM direct and through Penstock"):
            for number in range(ENGINE_ROUNDS):
                # The order turns, so that neither is always the one after the other.
                for name in ("penstock", "direct") if number % 2 else ("direct", "penstock"):
                    plan = Plan(requests=32, tokens=STREAM_TOKENS, streamed=True, extra={"ignore_eos": True})
                    loaded = await send(doors[name], plan, penstock.carried if name == "penstock" else None)
                    rates[name].append(loaded.requests * STREAM_TOKENS / loaded.wall_s)
    direct, through = (statistics.median(rates[name]) for name in ("direct", "penstock"))
    # Neighbours of a shared machine come and go: only what was measured one after the other compares.
    shares = [100 * one / other for one, other in zip(rates["penstock"], rates["direct"], strict=True)]
    return [
        Figure(
            name="relay.direct.vllm_tokens",
            figure=round(direct),
            unit="tokens/s",
            note=_spread(rates["direct"]),
        ),
        Figure(
            name="relay.penstock.vllm_tokens",
            figure=round(through),
            unit="tokens/s",
            note=_spread(rates["penstock"]),
        ),
        Figure(
            name="relay.penstock.vllm_throughput",
            figure=round(statistics.median(shares), 1),
            unit="%",
            bar=97.0,
            at_least=True,
            note=f"of direct, 16 streams; {_spread(shares)}",
        ),
    ]


def _spread(values: list[float]) -> str:
    digits = 0 if max(values) >= 100 else 2
    return f"{min(values):.{digits}f} … {max(values):.{digits}f}"
