"""What the billing pages make of wallets, bookings and budgets."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from msgspec.structs import replace

from penstock.portal import billing_view
from penstock_billing.books import Line
from penstock_billing.budgets import Budget, Period, Plan, Scope
from penstock_billing.leases import Wallet
from penstock_billing.ledger import AccountKind
from penstock_billing.record import Funding
from penstock_billing.wallets import WalletState

DOLLAR = 1_000_000_000
NOW = datetime(2026, 11, 21, 15, 0, tzinfo=UTC)
TODAY = date(2026, 11, 21)
STATE = WalletState(
    wallet=Wallet(1, 0),
    funding=Funding.PREPAID,
    named=True,
    strict=False,
    owed_max_nano_usd=None,
    prepaid_nano_usd=20 * DOLLAR,
    promotional_nano_usd=4 * DOLLAR,
    leased_nano_usd=1 * DOLLAR,
    owed_nano_usd=0,
    promotions=[],
    burn_per_day_nano_usd=10 * DOLLAR,
)


def test_credit_goes_from_what_it_was_over_what_it_is_to_nothing() -> None:
    days = {TODAY - timedelta(days=40): 90 * DOLLAR, TODAY - timedelta(days=2): 45 * DOLLAR}
    chart, rows = billing_view.burn_down(days, STATE, NOW)
    amounts = dict(rows)
    assert amounts[TODAY - timedelta(days=30)] == 90 * DOLLAR  # as before the first day shown
    assert amounts[TODAY - timedelta(days=1)] == 45 * DOLLAR  # nothing moved
    assert amounts[TODAY] == 25 * DOLLAR
    assert [amounts[TODAY + timedelta(days=ahead)] for ahead in (1, 2, 3)] == [15 * DOLLAR, 5 * DOLLAR, 0]
    assert max(amounts) == TODAY + timedelta(days=3)
    past, ahead = (series["values"] for series in chart["series"])
    assert len(past) == len(ahead) == len(chart["labels"])
    assert (past[30], ahead[30]) == (25.0, 25.0)


def test_credit_that_is_not_spent_has_no_end() -> None:
    _, rows = billing_view.burn_down({}, replace(STATE, burn_per_day_nano_usd=0), NOW)
    assert rows == [(TODAY, 25 * DOLLAR)]
    assert billing_view.ends_on(replace(STATE, burn_per_day_nano_usd=0), NOW) is None
    assert billing_view.ends_on(STATE, NOW) == TODAY + timedelta(days=2)


def test_an_overdrawn_wallet_is_shown_as_it_is() -> None:
    _, rows = billing_view.burn_down({}, replace(STATE, prepaid_nano_usd=-9 * DOLLAR), NOW)
    assert rows == [(TODAY, -4 * DOLLAR)]


@pytest.mark.parametrize(
    ("lines", "credit", "owed"),
    [
        ({AccountKind.CASH: 5, AccountKind.PREPAID: -5}, 5, 0),
        ({AccountKind.LEASE: 7, AccountKind.REVENUE: -7}, -7, 0),
        ({AccountKind.RECEIVABLE: 7, AccountKind.REVENUE: -7}, 0, 7),
        ({AccountKind.PREPAID: 7, AccountKind.LEASE: -7}, 0, 0),
        ({AccountKind.CONCESSION: 3, AccountKind.RECEIVABLE: -3}, 0, -3),
        ({AccountKind.LEASE: 4, AccountKind.RECEIVABLE: 6, AccountKind.REVENUE: -10}, -4, 6),
    ],
)
def test_a_booking_is_told_by_what_it_does_to_who_pays(
    lines: dict[AccountKind, int], credit: int, owed: int
) -> None:
    effect = billing_view.effect([Line(1, 0, kind, amount) for kind, amount in lines.items()])
    assert (effect.credit_nano_usd, effect.owed_nano_usd) == (credit, owed)


@pytest.mark.parametrize(
    ("limit", "spent", "percent", "tone"),
    [
        (100, 0, 0, ""),
        (100, 50, 50, ""),
        (100, 80, 80, "warn"),
        (1000, 999, 99, "warn"),
        (100, 100, 100, "bad"),
        (0, 0, 100, "bad"),
    ],
)
def test_a_budget_warns_before_it_ends(limit: int, spent: int, percent: int, tone: str) -> None:
    budget = Budget(
        id=1,
        scope=Scope(1),
        period=Period.MONTH,
        plan=Plan(limit_nano_usd=limit),
        created_at=NOW,
        spent_nano_usd=spent,
    )
    assert (billing_view.percent(budget), billing_view.tone(budget)) == (percent, tone)
