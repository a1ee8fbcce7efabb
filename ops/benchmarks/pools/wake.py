"""A sleeping model is asked for through the gateway: how long until its first token, and what takes the time.

The demo model on real vLLM, forked from the warm parent, with a controller and a gateway as `penstock up`
runs them. The pool sleeps again after a second without requests, and is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import cast

import asyncpg
import httpx
from benchmarks.figures import Figure, Unmeasurable
from benchmarks.registry import Run
from benchmarks.rig import servers
from benchmarks.rig.servers import Gateway

from penstock_engines import pools
from penstock_engines.autoscale import ScaleRules
from penstock_engines.pool_settings import PoolSettings

WAKES, WAKES_FULL = 5, 15
WAKE_BAR_S = 8.0
SLEEPS_WITHIN_S = 60.0
FIRST_WITHIN_S = 300.0
"""The very first start waits for the warm parent's imports, and is not counted."""

PARTS = {
    "decided": "from the request's leaving the client to the controller's decision",
    "forked": "to the engine's process",
    "loaded": "vLLM has the weights and listens",
    "proven": "its first answer, asked by the controller",
    "answered": "noticed by the gateway, the first token at the client",
}


async def real(run: Run) -> list[Figure]:
    """Wake the demo model a few times; raises Unmeasurable where it does not wake."""
    count = WAKES_FULL if run.full else WAKES
    folder = run.folder / "wake"
    folder.mkdir()
    wakes: list[dict[str, float]] = []
    async with contextlib.AsyncExitStack() as stack:
        with run.steps.step("gateway, controller, and a first start"):
            gateway = await stack.enter_async_context(servers.gateway(folder, models=""))
            await stack.enter_async_context(gateway.controller())
            rules = ScaleRules(replicas_min=0, replicas_max=1, idle_after_s=1.0)
            await gateway.make_pool(servers.DEMO, PoolSettings(scale=rules, wait_max_s=FIRST_WITHIN_S))
            await _asked_until_known(gateway)
        for number in range(1, count + 1):
            with run.steps.step(f"wake {number} of {count}"):
                await _asleep(gateway)
                wakes.append(await _wake(gateway))
    figures = [
        Figure(
            name=f"pools.wake.{part}",
            figure=round(statistics.median(wake[part] for wake in wakes), 2),
            unit="s",
            note=what,
        )
        for part, what in PARTS.items()
    ]
    whole = [wake["whole"] for wake in wakes]
    return [
        *figures,
        Figure(
            name="pools.wake.p50",
            figure=round(statistics.median(whole), 2),
            unit="s",
            bar=WAKE_BAR_S,
            note=f"{count} wakes of the demo model, {min(whole):.1f} … {max(whole):.1f}",
        ),
    ]


async def _asked_until_known(gateway: Gateway) -> None:
    """Ask until the gateway knows the pool and the model has answered once."""
    async with asyncio.timeout(FIRST_WITHIN_S):
        while True:
            with contextlib.suppress(Unmeasurable):
                await _first_token_s(gateway)
                return
            await asyncio.sleep(1.0)


async def _asleep(gateway: Gateway) -> None:
    """Wait until no engine is left."""
    try:
        async with asyncio.timeout(SLEEPS_WITHIN_S):
            while await pools.running(gateway.pool):  # noqa: ASYNC110 - Postgres tells nobody
                await asyncio.sleep(0.1)
            # What ended a moment ago may still be freeing its memory.
            await asyncio.sleep(1.0)
    except TimeoutError:
        raise Unmeasurable(f"the idle model did not fall asleep within {SLEEPS_WITHIN_S:.0f} s") from None


async def _wake(gateway: Gateway) -> dict[str, float]:
    """Ask once, and take the way to the first token apart."""
    asked_at = time.time()
    whole_s = await _first_token_s(gateway)
    starts: list[pools.Start] = []
    async with gateway.pool.acquire() as taken:
        connection = cast("asyncpg.Connection", taken)
        # The start is written down beside the answer, perhaps after it.
        async with asyncio.timeout(10):
            while not starts or starts[0].at.timestamp() < asked_at:
                starts = await pools.starts(connection, servers.DEMO, 1)
                await asyncio.sleep(0.05)
        decided = [each.at for each in await pools.scalings(connection, servers.DEMO, 5) if each.after == 1]
    timings = starts[0].timings
    decided_s = decided[0].timestamp() - asked_at
    return {
        "whole": whole_s,
        "decided": decided_s,
        "forked": timings.process_s,
        "loaded": timings.listening_s - timings.process_s,
        "proven": timings.answer_s - timings.listening_s,
        "answered": whole_s - decided_s - timings.answer_s,
    }


async def _first_token_s(gateway: Gateway) -> float:
    """Ask for a stream; seconds to its first token. Raises Unmeasurable with what was said instead."""
    body = {
        "model": servers.DEMO,
        "messages": [{"role": "user", "content": "Good morning!"}],
        "max_tokens": 8,
        "stream": True,
    }
    url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
    headers = {"authorization": f"Bearer {gateway.key}"}
    began_s, first_s = time.perf_counter(), 0.0
    async with (
        httpx.AsyncClient(timeout=FIRST_WITHIN_S + 10, trust_env=False) as client,
        client.stream("POST", url, json=body, headers=headers) as response,
    ):
        if response.status_code != 200:
            raise Unmeasurable(
                f"a sleeping model answered {response.status_code}: {await response.aread()!r}"
            )
        async for _ in response.aiter_raw():
            first_s = first_s or time.perf_counter() - began_s
    return first_s
