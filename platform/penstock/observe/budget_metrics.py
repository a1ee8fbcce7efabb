"""What the controller tells of budgets. No label carries a tenant: which budget it was is in the log."""

from __future__ import annotations

from prometheus_client import Counter

ALERTS = Counter("penstock_budget_alerts", "Thresholds of budgets that were passed", ["percent"])
EXPIRED = Counter("penstock_promotional_expired_nano_usd", "Promotional credit that expired, nano-dollars")
