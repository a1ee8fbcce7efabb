"""Writing down what all processes of this machine counted, for Prometheus to scrape."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest, multiprocess


def text() -> bytes:
    """Every process's metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
