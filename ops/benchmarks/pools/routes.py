"""Routing policies against cache hits and tails, on a trace of conversations that share prompts.

Groups of users share a long system prompt; each conversation grows turn by turn, and its next turn begins
with all that was said before. What an engine has of a prompt it need not read again.
"""

from __future__ import annotations

import asyncio
import random
import statistics

from benchmarks.figures import Figure
from benchmarks.registry import Run
from benchmarks.rig import virtual
from benchmarks.rig.model_engine import Machine, Part
from benchmarks.rig.pool_world import Asked, Setting, World

from penstock_engines.pool_settings import PolicyName

ENGINES = 4
MACHINE = Machine(batch_max=16, step_s=0.02, prefill_tokens_per_s=8_000.0, cache_tokens=40_000)
GROUPS, SYSTEM_TOKENS = 12, 1_500
CONVERSATIONS_PER_S = 1.6
TURNS_MEAN, THINK_S, TURN_TOKENS, ANSWER_MAX = 5, 6.0, 120, 160
TRACE_S = 120.0
SEEDS, SEEDS_FULL = 4, 40


async def simulated(run: Run) -> list[Figure]:
    """Play the same traces with each policy."""
    seeds = SEEDS_FULL if run.full else SEEDS
    figures = []
    for policy in PolicyName:
        with run.steps.step(f"{seeds} traces with {policy.value}"):
            figures += await asyncio.to_thread(_with, policy, seeds)
    return figures


def _with(policy: PolicyName, seeds: int) -> list[Figure]:
    firsts: list[float] = []
    cached = prompt = 0
    skews = []
    for seed in range(seeds):
        world = World(Setting(engines=ENGINES, machine=MACHINE, policy=policy), seed)
        asked = virtual.run(world.play(conversations(seed)))
        firsts += [each.first_s for each in asked if each.first_s is not None]
        cached += sum(each.cached_tokens for each in asked)
        prompt += sum(each.prompt_tokens for each in asked)
        busy = [engine.busy_s for engine in world.engines.values()]
        skews.append(max(busy) / statistics.mean(busy))
    firsts.sort()
    p50_ms, p99_ms = (firsts[int(len(firsts) * share)] * 1000 for share in (0.5, 0.99))
    name = f"pools.routing.{policy.value}"
    return [
        Figure(
            name=f"{name}.cached",
            figure=round(100 * cached / prompt, 1),
            unit="% of prompts",
            note=f"{ENGINES} engines, {GROUPS} shared prompts; busiest engine {statistics.mean(skews):.2f} "
            "times the mean",
        ),
        Figure(
            name=f"{name}.first_p99",
            figure=round(p99_ms),
            unit="ms",
            note=f"p50 {p50_ms:.0f} ms, {len(firsts):,} requests",
        ),
    ]


def conversations(seed: int) -> list[Asked]:
    """A trace: conversations come at random, and go on after each answer and a pause to think."""
    dice = random.Random(seed)
    asked: list[Asked] = []
    began_s = 0.0
    number = 0
    while (began_s := began_s + dice.expovariate(CONVERSATIONS_PER_S)) < TRACE_S:
        number += 1
        # Few groups have most of the users, as in life.
        group = min(int(dice.paretovariate(0.7)) - 1, GROUPS - 1)
        prompt: list[Part] = [(f"group {group}", SYSTEM_TOKENS)]
        at_s = began_s
        for turn in range(1 + int(dice.expovariate(1 / TURNS_MEAN))):
            prompt = [*prompt, (f"conversation {number}, turn {turn}", dice.randint(20, TURN_TOKENS))]
            answer = dice.randint(20, ANSWER_MAX)
            asked.append(Asked(at_s, number, prompt, answer, session=f"conversation {number}"))
            prompt = [*prompt, (f"conversation {number}, answer {turn}", answer)]
            at_s += answer * MACHINE.step_s * 1.5 + dice.expovariate(1 / THINK_S)
    return asked
