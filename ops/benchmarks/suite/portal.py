"""The portal with a month of requests and hundreds of models behind it: its pages' times and weights.

A gateway worker as `penstock up` runs it, with PostgreSQL and Valkey; 500 models besides those that ship,
200 organisations, 8,000 keys; the visitor owns the largest organisation (17 % of all requests) and is an
operator. `--full` has 10 million requests. Times are an HTTP client's, one page after the other.

    portal.PAGE            server time of a page, p95
    portal.search          one more letter typed into the catalog's search, p95
    portal.first_paint     the slowest page with its stylesheets, p50: from here a browser can draw
    portal.weight          the heaviest page with everything it loads, compressed, as a first visit brings it
"""

from __future__ import annotations

import math
import statistics

from benchmarks.figures import Figure, Unmeasurable
from benchmarks.portal import visits, world
from benchmarks.portal.world import World
from benchmarks.registry import Run

PAGE_MS, SEARCH_MS, PAINT_MS, WEIGHT_KB = 150.0, 30.0, 100.0, 300.0
FIXED = {
    "overview": "/portal",
    "models": "/portal/models",
    "compare": "/portal/compare?model=bench/model-1&model=bench/model-2&model=bench/model-3",
    "playground": "/portal/playground",
    "endpoints": "/portal/endpoints",
    "requests": "/portal/requests",
    "requests_of_a_model": "/portal/requests?within=31d&model=bench/model-3",
    "requests_of_none": "/portal/requests?within=31d&model=bench/model-300",
    "requests_slow": "/portal/requests?within=31d&longer_than=2s",
    "usage": "/portal/usage",
    "usage_by_key": "/portal/usage?by=key",
    "billing": "/portal/billing",
    "ledger": "/portal/billing/ledger",
    "budgets": "/portal/billing/budgets",
    "prices": "/portal/prices",
    "keys": "/portal/keys",
    "projects": "/portal/projects",
    "members": "/portal/members",
    "audit": "/portal/audit",
    "account": "/portal/account",
    "operator_organisations": "/portal/operator/organisations",
    "operator_pools": "/portal/operator/pools",
    "operator_hardware": "/portal/operator/hardware",
    "operator_margins": "/portal/operator/margins",
    "operator_prices": "/portal/operator/prices",
    "operator_reconciliation": "/portal/operator/reconciliation",
}
LED_TO = {
    "model": ("models", r"/portal/models/bench/model-\d+"),
    "endpoint": ("endpoints", r"/portal/endpoints/serverless/desk-\d+"),
    "request": ("requests", r"/portal/requests/req_\w+"),
    "operator_pool": ("operator_pools", r"/portal/operator/pools/.+"),
}
"""Pages of single things: the page that leads there, and what its address looks like."""
ENDPOINT_TABS = {
    "endpoint_usage": "usage?window=30d",
    "endpoint_latency": "latency?window=7d",
    "endpoint_errors": "errors?window=7d",
    "endpoint_keys": "keys",
}
SEARCHED = ("q", "qw", "qwe", "qwen", "llama 70", "number 41", "embed", "whisper", "nothing has this name")


async def measure(run: Run) -> list[Figure]:
    """Take every figure of the portal."""
    events, rounds = (10_000_000, 100) if run.full else (200_000, 30)
    async with world.open_world(run, events) as there:
        with run.steps.step("pages"):
            return await _measure(there, rounds)


async def _measure(there: World, rounds: int) -> list[Figure]:
    figures, heaviest, slowest = [], (0.0, ""), (0.0, "")
    size = f"{there.events:,} requests{'' if there.events >= 10_000_000 else ' (SMALL; --full: 10M)'}"
    for name, path in (await _pages(there)).items():
        taken = [await visits.visit(there.browser, path) for _ in range(rounds + 2)][2:]
        pages_ms = [one.page_ms for one in taken]
        weight_kb = await visits.weigh(there.browser, path) / 1024
        heaviest = max(heaviest, (weight_kb, name))
        slowest = max(slowest, (statistics.median(one.paint_ms for one in taken), name))
        note = f"p50 {statistics.median(pages_ms):.1f}; {weight_kb:.0f} KB; {rounds} visits; {size}"
        figures.append(_figure(name, _p95(pages_ms), "ms", PAGE_MS, note))
    searched_ms = [
        (await visits.visit(there.browser, f"/portal/models?q={words}")).page_ms
        for _ in range(rounds)
        for words in SEARCHED
    ]
    models = f"{world.MODELS} models; p50 {statistics.median(searched_ms):.1f}"
    return [
        *figures,
        _figure("search", _p95(searched_ms), "ms", SEARCH_MS, models),
        _figure("first_paint", slowest[0], "ms", PAINT_MS, f"p50 of the slowest: {slowest[1]}"),
        _figure("weight", heaviest[0], "KB", WEIGHT_KB, f"the heaviest: {heaviest[1]}"),
    ]


async def _pages(there: World) -> dict[str, str]:
    pages = dict(FIXED)
    for name, (source, pattern) in LED_TO.items():
        found = await visits.first_link(there.browser, FIXED[source], pattern)
        if found is None:
            raise Unmeasurable(f"{FIXED[source]} leads to no page {pattern}")
        pages[name] = found
    return pages | {name: f"{pages['endpoint']}/{tab}" for name, tab in ENDPOINT_TABS.items()}


def _p95(taken: list[float]) -> float:
    return sorted(taken)[math.ceil(0.95 * len(taken)) - 1]


def _figure(name: str, figure: float, unit: str, bar: float, note: str) -> Figure:
    return Figure(name=f"portal.{name}", figure=round(figure, 2), unit=unit, bar=bar, note=note)
