"""The engine's own figures, out of its Prometheus page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock_engines.failures import ScrapeError


@dataclass(frozen=True)
class EngineFigures:
    """What the engine says about itself; the totals count from its start."""

    running: int
    """Requests that are being computed."""
    waiting: int
    """Requests the engine holds without computing them."""
    kv_usage: float
    """Share of the KV cache in use, 0 to 1."""
    prompt_tokens: int
    """Prompt tokens of all requests whose prompt was computed, cached ones included."""
    cached_tokens: int
    """Prompt tokens that came from the prefix cache."""
    generation_tokens: int
    """Tokens made, those of aborted requests included."""
    preemptions: int
    """Requests that lost their place in the KV cache and were computed again."""


NAMES: Final = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "kv_usage",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:prompt_tokens_cached_total": "cached_tokens",
    "vllm:generation_tokens_total": "generation_tokens",
    "vllm:num_preemptions_total": "preemptions",
}


def parse(page: str) -> EngineFigures:
    """Read the figures out of a metrics page, summed over the engine's parts (data parallel ranks).

    Raises ScrapeError where the page has none of them or a value is no number. Figures that a kind of engine
    does not have (an embedding engine makes no tokens) are 0.
    """
    found: dict[str, float] = {}
    for line in page.splitlines():
        name = line.partition("{")[0] if "{" in line else line.partition(" ")[0]
        field = NAMES.get(name)
        if field is None:
            continue
        try:
            value = float(line.rpartition(" ")[2])
        except ValueError:
            raise ScrapeError(f"the engine's metrics page has no number in the line {line!r}") from None
        found[field] = found.get(field, 0.0) + value
    if "running" not in found:
        raise ScrapeError("the engine's metrics page lacks vllm:num_requests_running: is this vLLM?")
    counts = {field: int(found.get(field, 0.0)) for field in NAMES.values() if field != "kv_usage"}
    return EngineFigures(kv_usage=found.get("kv_usage", 0.0), **counts)
