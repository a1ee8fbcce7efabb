"""Budgets in memory: which one refuses, what it says, and what a new month does without a database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penstock.access.keyring import Principal
from penstock.admission.budgets import BudgetExceeded, BudgetHeld, Budgets
from penstock_billing.budgets import Budget, Period, Plan, Scope
from penstock_billing.journal import Journal

ALL = Scope(1)
WHO = Principal(1, 2, "k")
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(tmp_path, reserve_bytes=1 << 12)) as opened:
        yield opened


def budget(
    limit: int, spent: int = 0, scope: Scope = ALL, period: Period = Period.MONTH, *, hard: bool = True
) -> Budget:
    plan = Plan(limit_nano_usd=limit, enforced=hard)
    return Budget(id=limit, scope=scope, period=period, plan=plan, created_at=NOVEMBER, spent_nano_usd=spent)


def knowing(journal: Journal, *found: Budget) -> Budgets:
    """A gateway that read these at the end of November."""
    known = Budgets(journal)
    known._take_over(list(found), NOVEMBER)
    return known


def ask(known: Budgets, worst: int, at: datetime = NOVEMBER) -> None:
    reservation = known.reserve(WHO, lambda: worst, at.timestamp())
    assert reservation is not None
    reservation.close()


def test_the_narrowest_budget_that_is_used_up_is_named(journal: Journal) -> None:
    known = knowing(
        journal, budget(10, 10), budget(20, 20, Scope(1, 2)), budget(30, 30, Scope(1, None, "k")), budget(40)
    )
    with pytest.raises(BudgetExceeded, match="this key's monthly budget") as refused:
        ask(known, 1)
    assert (refused.value.budget.id, refused.value.scope, refused.value.needed_nano_usd) == (30, "key", 1)
    assert refused.value.resets_at == DECEMBER


def test_others_budgets_do_not_matter(journal: Journal) -> None:
    used_up = (budget(1, 1, Scope(1, 9)), budget(1, 1, Scope(1, None, "other")), budget(1, 1, Scope(7)))
    known = knowing(journal, *used_up)
    ask(known, 5)
    assert known.reserve(Principal(2, 2, "k"), lambda: 5) is None


def test_to_the_last_nano_dollar_and_no_further(journal: Journal) -> None:
    known = knowing(journal, budget(10, 7))
    ask(known, 3)
    with pytest.raises(BudgetExceeded):
        ask(known, 4)


def test_even_what_may_cost_nothing_needs_a_nano_dollar(journal: Journal) -> None:
    with pytest.raises(BudgetExceeded):
        ask(knowing(journal, budget(0)), 0)


def test_a_soft_budget_refuses_nothing(journal: Journal) -> None:
    ask(knowing(journal, budget(1, 99, hard=False)), 10**12)


def test_what_running_requests_hold_is_worth_waiting_for(journal: Journal) -> None:
    known = knowing(journal, budget(10))
    running = known.reserve(WHO, lambda: 6, NOVEMBER.timestamp())
    assert running is not None
    with pytest.raises(BudgetHeld) as held:
        ask(known, 5)
    assert held.value.retry_after_s == 1
    with pytest.raises(BudgetExceeded):
        ask(known, 11)
    running.settle(1, int(NOVEMBER.timestamp() * 1000))
    ask(known, 9)


def test_a_new_month_begins_by_the_clock_alone(journal: Journal) -> None:
    total = budget(20, 10, period=Period.TOTAL)
    known = knowing(journal, budget(10, 10), total)
    with pytest.raises(BudgetExceeded):
        ask(known, 1)
    ask(known, 10, DECEMBER)
    with pytest.raises(BudgetExceeded, match="total budget") as refused:
        ask(known, 11, DECEMBER)
    assert refused.value.resets_at is None


def test_what_ended_in_the_old_month_does_not_count_in_the_new_one(journal: Journal) -> None:
    known = knowing(journal, budget(10))
    running = known.reserve(WHO, lambda: 6, NOVEMBER.timestamp())
    assert running is not None
    running.settle(6, int(NOVEMBER.timestamp() * 1000))
    with pytest.raises(BudgetExceeded):
        ask(known, 5)
    ask(known, 10, DECEMBER)


def test_what_still_runs_holds_room_in_the_new_month(journal: Journal) -> None:
    known = knowing(journal, budget(10))
    running = known.reserve(WHO, lambda: 6, NOVEMBER.timestamp())
    assert running is not None
    with pytest.raises(BudgetHeld):
        ask(known, 5, DECEMBER)
    running.settle(6, int(DECEMBER.timestamp() * 1000))
    with pytest.raises(BudgetExceeded):
        ask(known, 5, DECEMBER)


def test_budgets_that_change_keep_what_is_held(journal: Journal) -> None:
    known = knowing(journal, budget(10))
    running = known.reserve(WHO, lambda: 6, NOVEMBER.timestamp())
    assert running is not None
    known._take_over([budget(12)], NOVEMBER)
    with pytest.raises(BudgetHeld):
        ask(known, 7)
    running.close()
    running.close()
    ask(known, 12)
