"""One tenant floods and others chat: first come, first served against the fair queue.

First come, first served is the same queue with everybody in one tenant, so that nothing else differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
from itertools import combinations

from benchmarks.figures import Figure
from benchmarks.registry import Run
from benchmarks.rig import servers, virtual
from benchmarks.rig.load import Loaded, Plan
from benchmarks.rig.model_engine import Machine
from benchmarks.rig.pool_world import Asked, Setting, World, widest_gap
from benchmarks.rig.ways import Door, send

from penstock.admission.fair_queue import OUTPUT_WEIGHT, PROMPT_WEIGHT
from penstock_engines.pool_settings import PoolSettings

RATIO_BAR = 2.0
"""The others' p99 time to first token under the flood, over that without."""

SEEDS, SEEDS_FULL = 8, 500
BATCH = 32
TRACE_S = 25.0
STEADY_S = 5.0
"""Chats begin so long after the flood: its first burst of prompts is read by then."""
PROMPT_MAX, OUTPUT_MAX = 600, 200
CHATTERS = 4

ENGINE_TOKENS_PER_S = 100.0
ENGINE_FIRST_MS = 40.0
"""To read a prompt of some hundred tokens: about a 7B model on one small GPU."""
FLOOD_TOKENS, CHAT_TOKENS = 64, 16
FLOOD_CONNECTIONS = 160
CHAT_PER_S = 2.0
PHASE_S, PHASE_FULL_S = 20.0, 60.0


async def simulated(run: Run) -> list[Figure]:
    """In virtual time, over many seeds: waits under a flood, and how far service differs."""
    seeds = SEEDS_FULL if run.full else SEEDS
    with run.steps.step(f"{seeds} floods in virtual time"):
        return await asyncio.to_thread(_simulated, seeds)


def _simulated(seeds: int) -> list[Figure]:
    alone: list[float] = []
    under: dict[bool, list[float]] = {False: [], True: []}
    unserved, gaps = 0, []
    for seed in range(seeds):
        alone += _firsts(_play(seed, fair=True, flooded=False)[1])
        for fair in (False, True):
            _, asked = _play(seed, fair=fair, flooded=True)
            under[fair] += _firsts(asked)
            if not fair:
                unserved += sum(each.refused for each in asked if each.tenant)
        gaps.append(_gap(seed))
    places = BATCH * (PROMPT_MAX * PROMPT_WEIGHT + OUTPUT_MAX * OUTPUT_WEIGHT)
    bound = 2 * max(PROMPT_MAX * PROMPT_WEIGHT, places)
    base_s = _p99(alone)
    note = f"{seeds} seeds, {BATCH} places, {CHATTERS} tenants chat; unloaded {base_s * 1000:.0f} ms"
    return [
        Figure(
            name="pools.simulated.first_come.flood_p99",
            figure=round(_p99(under[False]) / base_s, 2),
            unit="x unloaded",
            note=f"{unserved / seeds:.1f} chats a run gave up",
        ),
        Figure(
            name="pools.simulated.fair.flood_p99",
            figure=round(_p99(under[True]) / base_s, 2),
            unit="x unloaded",
            bar=RATIO_BAR,
            note=note,
        ),
        Figure(
            name="pools.simulated.fair.service_gap",
            figure=round(100 * max(gaps) / bound, 1),
            unit="% of bound",
            bar=100.0,
            note=f"largest of all runs, median {100 * statistics.median(gaps) / bound:.1f}; "
            f"the bound is {bound:,.0f} weighted tokens",
        ),
    ]


def _play(seed: int, *, fair: bool, flooded: bool) -> tuple[World, list[Asked]]:
    """Run the same chats with or without the flood."""
    dice = random.Random(seed)
    chats = [each for tenant in range(1, CHATTERS + 1) for each in _requests(dice, tenant, 0.4, 200, 60)]
    trace = [each for each in chats if each.at_s >= STEADY_S]
    if flooded:
        trace += _requests(random.Random(-seed - 1), 0, 60.0, PROMPT_MAX, OUTPUT_MAX)
    world = World(Setting(machine=Machine(batch_max=BATCH), fair=fair), seed)
    return world, virtual.run(world.play(trace))


def _gap(seed: int) -> float:
    """The widest difference in service between tenants that all flood."""
    dice = random.Random(seed)
    tenants = range(dice.randint(2, 4))
    trace = [
        each
        for tenant in tenants
        for each in _requests(dice, tenant, dice.choice([10.0, 40.0]), PROMPT_MAX, OUTPUT_MAX, 12.0)
    ]
    patient = Setting(machine=Machine(batch_max=BATCH), waiting_max=100_000, wait_max_s=3600)
    world = World(patient, seed, keep_moments=True)
    virtual.run(world.play(trace))
    return max(widest_gap(world.moments, one, other) for one, other in combinations(tenants, 2))


def _requests(
    dice: random.Random,
    tenant: int,
    per_s: float,
    prompt_max: int,
    output_max: int,
    until_s: float = TRACE_S,
) -> list[Asked]:
    asked, at_s = [], 0.0
    while (at_s := at_s + dice.expovariate(per_s)) < until_s:
        prompt = [(f"{tenant} at {at_s}", dice.randint(10, prompt_max))]
        asked.append(Asked(at_s, tenant, prompt, dice.randint(5, output_max)))
    return asked


def _firsts(asked: list[Asked]) -> list[float]:
    return [each.first_s for each in asked if each.tenant and each.first_s is not None]


async def through_gateway(run: Run) -> list[Figure]:
    """The same through the real gateway, in front of a simulated engine."""
    lasts_s = PHASE_FULL_S if run.full else PHASE_S
    folder = run.folder / "flood"
    folder.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        with run.steps.step("gateway and simulated engine for the flood"):
            model = servers.stand_ins(1)[0]
            engine = servers.simulated_engine(
                folder,
                "engine",
                model,
                tokens_per_s=ENGINE_TOKENS_PER_S,
                first_token_ms=ENGINE_FIRST_MS,
            )
            await stack.enter_async_context(engine)
            gateway = await stack.enter_async_context(servers.gateway(folder))
            await gateway.make_pool(model, PoolSettings())
            await gateway.register(model, folder / "engine.sock", batch_max=BATCH)
            chatters = [await gateway.new_key(f"chatter {number}") for number in range(CHATTERS)]
        door = gateway.door(model)
        flood = Door(model, port=gateway.port, key=gateway.key)

        async def chats(keys: list[str]) -> list[float]:
            """Let the others chat; their times to first token in milliseconds."""
            plans = [
                send(
                    Door(model, port=gateway.port, key=key),
                    Plan(
                        requests=int(CHAT_PER_S * lasts_s),
                        connections=2,
                        tokens=CHAT_TOKENS,
                        streamed=True,
                        rate_per_s=CHAT_PER_S,
                        warm_up=2,
                        keep_firsts=True,
                        lasts_s=lasts_s,
                    ),
                )
                for key in keys
            ]
            return [first for loaded in await asyncio.gather(*plans) for first in loaded.firsts_ms]

        async def flooded(keys: list[str]) -> tuple[list[float], Loaded]:
            """Let the others chat while one floods."""
            plan = Plan(
                requests=1_000_000,
                connections=FLOOD_CONNECTIONS,
                tokens=FLOOD_TOKENS,
                streamed=True,
                warm_up=0,
                # Answers of one length that begin together would end together, for ever.
                spread_s=FLOOD_TOKENS / ENGINE_TOKENS_PER_S,
                lasts_s=lasts_s + 4,
            )
            flooding = asyncio.create_task(send(flood, plan))
            await asyncio.sleep(2)
            firsts = await chats(keys)
            return firsts, await flooding

        with run.steps.step("chats alone"):
            alone = await chats(chatters)
        with run.steps.step("chats under a flood, in one tenant: first come, first served"):
            first_come, _ = await flooded([door.key] * CHATTERS)
        with run.steps.step("chats under a flood, each tenant for itself"):
            fair, heavy = await flooded(chatters)
    base_ms = _p99(alone)
    note = f"{len(alone)} chats; unloaded p99 {base_ms:.1f} ms, p50 {statistics.median(alone):.1f} ms"
    return [
        Figure(
            name="pools.gateway.first_come.flood_p99",
            figure=round(_p99(first_come) / base_ms, 2),
            unit="x unloaded",
            note=f"p50 {statistics.median(first_come):.0f} ms, p99 {_p99(first_come):.0f} ms",
        ),
        Figure(
            name="pools.gateway.fair.flood_p99",
            figure=round(_p99(fair) / base_ms, 2),
            unit="x unloaded",
            bar=RATIO_BAR,
            note=f"p50 {statistics.median(fair):.1f} ms, p99 {_p99(fair):.1f} ms; {note}",
        ),
        Figure(
            name="pools.gateway.fair.flood_tokens",
            figure=round(heavy.answered * FLOOD_TOKENS / heavy.wall_s),
            unit="tokens/s",
            note=f"what the flood had of {BATCH * ENGINE_TOKENS_PER_S:,.0f} meanwhile",
        ),
    ]


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
