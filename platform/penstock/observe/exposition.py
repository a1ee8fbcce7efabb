"""Writing down what all processes of this machine counted, for Prometheus to scrape."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from penstock.observe import sharing


def text() -> bytes:
    """Every process's metrics in Prometheus' text format."""
    sharing.forget_ended(Path(os.environ[sharing.VARIABLE]))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
