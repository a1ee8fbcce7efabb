"""The controller's Prometheus metrics of reconciling; a module of its own, as engine_metrics is."""

from __future__ import annotations

from prometheus_client import Gauge

DIFFERENCES = Gauge(
    "penstock_reconcile_differences",
    "Differences between engines, journals, events and ledger that the last reconciliation found",
    multiprocess_mode="livemostrecent",
)
UNBILLED_REQUESTS = Gauge(
    "penstock_reconcile_unbilled_requests",
    "Requests of the last reconciliation's window that engines worked on and nobody pays, by our rules",
    multiprocess_mode="livemostrecent",
)
LAST_SUCCESS = Gauge(
    "penstock_reconcile_last_success",
    "Unix time of the last reconciliation that came to its end, whatever it found",
    multiprocess_mode="livemostrecent",
)
