"""The alert rules: read as Prometheus would, and about metrics that there are."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import penstock.observe

ROOT = Path(__file__).parents[3]
GROUPS = yaml.safe_load((ROOT / "ops/prometheus/alerts.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """The names under which Prometheus sees the metrics of all processes."""
    for module in pkgutil.iter_modules(penstock.observe.__path__, "penstock.observe."):
        importlib.import_module(module.name)
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name + suffix
        for family in REGISTRY.collect()
        if family.name.startswith("penstock_")
        for suffix in suffixes.get(family.type, ("",))
    }


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_about_metrics_that_there_are(rule: dict[str, Any], exposed: set[str]) -> None:
    named = set(re.findall(r"penstock_\w+", rule["expr"]))
    assert named
    assert named <= exposed


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / page).is_file()
    assert not anchor or anchor in anchors(ROOT / page)
    assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_what_the_books_need_has_a_rule() -> None:
    about = " ".join(rule["expr"] for rule in RULES)
    for metric in (
        "penstock_reconcile_differences",
        "penstock_reconcile_last_success",
        "penstock_journal_behind_seconds",
        "penstock_journal_healthy",
        "penstock_engine_restarts_total",
    ):
        assert metric in about
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_what_pools_need_has_a_rule() -> None:
    about = " ".join(rule["expr"] for rule in RULES)
    for metric in (
        "penstock_queue_requests",
        "penstock_queue_wait_seconds_bucket",
        "penstock_replicas",
        "penstock_engine_start_seconds_bucket",
        "penstock_engine_breakers_opened_total",
        "penstock_pool_without_place",
        "penstock_controller_leads",
    ):
        assert metric in about


def test_the_runbook_knows_every_check() -> None:
    from penstock_billing.invariants import Check
    from penstock_billing.reconcile.report import Compared

    page = (ROOT / "ops/runbooks/reconcile.md").read_text()
    assert [check.value for check in (*Check, *Compared) if f"`{check.value}`" not in page] == []
