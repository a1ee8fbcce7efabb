"""The Prometheus metrics of a journal and its shipper, for the process that has them.

A gauge is in the shared figures from its import on, at 0: only a gateway may import these, or the controller
would tell of a journal that is not healthy.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

HEALTHY = Gauge("penstock_journal_healthy", "1 while usage can be recorded", multiprocess_mode="livemin")
BEHIND_BYTES = Gauge(
    "penstock_journal_behind_bytes", "Journal bytes not yet in Postgres", multiprocess_mode="livesum"
)
BEHIND_SECONDS = Gauge(
    "penstock_journal_behind_seconds",
    "Age of the oldest record not yet in Postgres",
    multiprocess_mode="livemax",
)
SHIPPED = Counter("penstock_journal_shipped_records", "Records moved from journals to Postgres")
DUPLICATES = Counter(
    "penstock_journal_duplicate_records", "Records that Postgres had although the cursor said otherwise"
)
RECOVERED = Counter(
    "penstock_recovered_streams", "Streams of killed gateways, charged as far as they had been noted"
)
QUARANTINED = Gauge(
    "penstock_journal_quarantined_files",
    "Damaged journal files set aside: what is in them is not billed until a person has seen to them",
    multiprocess_mode="livemax",
)
