"""Thresholds of budgets are told once: a row, a log line, a count."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prometheus_client import REGISTRY

from penstock.control import spending
from penstock_billing import budgets
from penstock_billing.budgets import Period, Plan, Scope


async def test_a_passed_threshold_is_told_once(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    organisation_id = await bench.database.fetchval("select id from access.organisation")
    async with bench.database.acquire() as connection:
        plan = Plan(limit_nano_usd=1_000, alert_percents=(77, 100))
        made = await budgets.put(connection, Scope(organisation_id), Period.TOTAL, plan)
    await bench.database.execute(
        "insert into billing.spend_month values ($1, 1, 'k', '2026-01-01', 800)", organisation_id
    )
    with caplog.at_level(logging.WARNING, logger="penstock.control.spending"):
        await spending.tell(bench.database)
        await spending.tell(bench.database)
    (record,) = [each for each in caplog.records if each.name == "penstock.control.spending"]
    assert record.getMessage() == "77 % of a budget are spent"
    assert (record.organisation_id, record.budget, record.percent) == (organisation_id, made, 77)  # type: ignore[attr-defined]
    assert REGISTRY.get_sample_value("penstock_budget_alerts_total", {"percent": "77"}) == 1
