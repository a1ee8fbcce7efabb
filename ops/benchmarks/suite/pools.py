"""What shared pools promise: fairness under a flood, goodput in overload, cache hits, and waking.

Simulations run the real dispatcher, fair queue, windows and policies in virtual time, in front of engines
that batch in steps and have a prefix cache; `--full` takes more seeds and longer phases. Through the gateway
it is a real one with PostgreSQL and Valkey in front of simulated engines, or real vLLM where it wakes.

    simulated.*.flood_p99      others' p99 time to first token under one tenant's flood, over that without
    simulated.fair.service_gap largest difference in service between backlogged tenants, of the theory's bound
    routing.POLICY.*           share of prompt tokens from caches, and p99 time to first token
    gateway.*.flood_p99        the flood through the gateway
    overload.*                 goodput at so many times the capacity, refusals, memory
    wake.*                     a sleeping model asked for through the gateway: the way to its first token
"""

from __future__ import annotations

from benchmarks.figures import Figure
from benchmarks.pools import flood, overload, routes, wake
from benchmarks.registry import Run


async def measure(run: Run) -> list[Figure]:
    """Take every figure of the pools."""
    figures = await flood.simulated(run)
    figures += await routes.simulated(run)
    figures += await flood.through_gateway(run)
    figures += await overload.through_gateway(run)
    return figures + await wake.real(run)
