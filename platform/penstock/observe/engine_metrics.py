"""The controller's Prometheus metrics: the engines as it sees them.

A module of its own, because a gauge exists, at 0, in every process that imports it.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REPLICAS = Gauge(
    "penstock_replicas", "Engines by state", ["model", "state"], multiprocess_mode="livemostrecent"
)
LEADS = Gauge("penstock_controller_leads", "1 while this controller leads", multiprocess_mode="livesum")
WITHOUT_PLACE = Gauge(
    "penstock_pool_without_place",
    "1 while an engine of the pool finds no room on the hardware",
    ["model"],
    multiprocess_mode="livemostrecent",
)
START = Histogram(
    "penstock_engine_start_seconds",
    "Launch of an engine to its first answer",
    ["model"],
    buckets=(1, 2, 4, 6, 8, 10, 15, 20, 30, 60, 120, 300, 600),
)
RESTARTS = Counter("penstock_engine_restarts", "Engines started again after a failure", ["model"])
ENGINE_RUNNING = Gauge(
    "penstock_engine_requests_running",
    "Requests in the engine's batch",
    ["model"],
    multiprocess_mode="livemostrecent",
)
ENGINE_WAITING = Gauge(
    "penstock_engine_requests_waiting",
    "Requests queued in the engine",
    ["model"],
    multiprocess_mode="livemostrecent",
)
ENGINE_KV_CACHE = Gauge(
    "penstock_engine_kv_cache_ratio",
    "Used part of the KV cache, 0 to 1",
    ["model"],
    multiprocess_mode="livemostrecent",
)
