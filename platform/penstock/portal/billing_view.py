"""From wallets, budgets and bookings to what the billing pages show. Pure; amounts are exact integers."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from penstock_base import money
from penstock_billing.books import Line, Transaction
from penstock_billing.budgets import Budget, Period
from penstock_billing.ledger import AccountKind, TransactionKind
from penstock_billing.record import Funding
from penstock_billing.wallets import WalletState

DAYS_SHOWN = 30
AHEAD_MAX = 60
"""Days of the future in the chart; credit that lasts longer is told in words."""
CREDIT = frozenset({AccountKind.PREPAID, AccountKind.PROMOTIONAL, AccountKind.LEASE})
TRANSACTIONS = {
    TransactionKind.USAGE: "Requests",
    TransactionKind.MINUTES: "Minutes",
    TransactionKind.TOP_UP: "Top-up",
    TransactionKind.PROMOTION: "Promotional credit",
    TransactionKind.PROMOTION_EXPIRY: "Promotional credit expired",
    TransactionKind.LEASE_GRANT: "Credit held by a gateway",
    TransactionKind.LEASE_RELEASE: "Credit back from a gateway",
    TransactionKind.PAYMENT: "Payment",
    TransactionKind.REFUND: "Refund",
    TransactionKind.CORRECTION: "Correction",
}
ACCOUNTS = {
    AccountKind.RECEIVABLE: "owed",
    AccountKind.REVENUE: "charged for use",
    AccountKind.CASH: "paid",
    AccountKind.PREPAID: "prepaid credit",
    AccountKind.PROMOTIONAL: "promotional credit",
    AccountKind.PROMOTION_COST: "given as promotional credit",
    AccountKind.LEASE: "credit held by gateways",
    AccountKind.BREAKAGE: "expired credit",
    AccountKind.CONCESSION: "given back",
}
SOON_DAYS = 7
"""Credit that lasts no longer is worth a warning."""


class Effect(msgspec.Struct, frozen=True):
    """What a booking means to who pays: how their credit and what they owe changed."""

    credit_nano_usd: int
    owed_nano_usd: int

    @property
    def words(self) -> str:
        """What changed, where both or neither did."""
        if self.owed_nano_usd and not self.credit_nano_usd:
            return "owed"
        return "credit" if self.credit_nano_usd else ""


def effect(lines: list[Line]) -> Effect:
    """Sum up the entries of one organisation; what only moved from credit to credit comes to 0."""
    return Effect(
        credit_nano_usd=-sum(line.amount_nano_usd for line in lines if line.kind in CREDIT),
        owed_nano_usd=sum(line.amount_nano_usd for line in lines if line.kind is AccountKind.RECEIVABLE),
    )


def reference(booked: Transaction) -> str:
    """What a person gave as the reason; the platform's own references are nobody else's matter."""
    machines = {
        TransactionKind.USAGE,
        TransactionKind.MINUTES,
        TransactionKind.LEASE_GRANT,
        TransactionKind.LEASE_RELEASE,
        TransactionKind.PROMOTION_EXPIRY,
    }
    return "" if booked.kind in machines else booked.ref


def manner(state: WalletState) -> str:
    """How a wallet pays, in words."""
    if state.funding is Funding.PREPAID:
        return "Prepaid, strict" if state.strict else "Prepaid"
    return "Postpaid"


def manner_explained(state: WalletState) -> str:
    """What that means for requests."""
    if state.funding is Funding.PREPAID:
        return (
            "A request is admitted only if its worst case is covered, so credit never goes below zero."
            if state.strict
            else "Requests are paid from credit; when none is left they are refused with 402."
        )
    if state.owed_max_nano_usd is None:
        return "Requests are owed and paid afterwards, without a limit."
    return "Requests are owed and paid afterwards; beyond the limit they are refused with 402."


def ends_on(state: WalletState, now: datetime) -> date | None:
    """The day on which credit runs out at the present rate."""
    if state.days_left is None:
        return None
    return now.astimezone(UTC).date() + timedelta(days=min(state.days_left, 36_500))


def burn_down(
    days: dict[date, int], state: WalletState, now: datetime
) -> tuple[dict[str, Any], list[tuple[date, int]]]:
    """Credit over the last days and, at the present rate, the days to come: for js/charts.js, and as rows.

    `days` as `credit_days.of_wallet` tells them: between two the credit stayed as it was.
    """
    today = now.astimezone(UTC).date()
    first = today - timedelta(days=DAYS_SHOWN)
    before = [amount for day, amount in days.items() if day < first]
    standing = before[-1] if before else None
    past: list[int | None] = []
    labels: list[date] = []
    for number in range(DAYS_SHOWN):
        day = first + timedelta(days=number)
        standing = days.get(day, standing)
        if standing is not None:
            labels.append(day)
            past.append(standing)
    labels.append(today)
    past.append(state.available_nano_usd)
    ahead: list[int | None] = [*(None for _ in past[:-1]), state.available_nano_usd]
    if state.days_left is not None:
        left = state.available_nano_usd
        for number in range(1, AHEAD_MAX + 1):
            if left <= 0:
                break
            left = max(0, left - state.burn_per_day_nano_usd)
            labels.append(today + timedelta(days=number))
            past.append(None)
            ahead.append(left)
    chart = {
        "type": "line",
        "labels": [f"{day.day} {day:%b}" for day in labels],
        "stacked": False,
        "unit": "usd",
        "series": [
            {"name": "Credit at the end of the day", "values": [_dollars(amount) for amount in past]},
            {"name": "At the present rate", "values": [_dollars(amount) for amount in ahead]},
        ],
    }
    rows = [(day, amount) for day, *both in zip(labels, past, ahead, strict=True) for amount in _first(both)]
    return chart, rows


def percent(budget: Budget) -> int:
    """How much of a budget is spent, whole percent, rounded down."""
    if not budget.plan.limit_nano_usd:
        return 100
    return 100 * budget.spent_nano_usd // budget.plan.limit_nano_usd


def tone(budget: Budget) -> str:
    """How near a budget is to its end: by its own thresholds."""
    spent = percent(budget)
    if spent >= 100:
        return "bad"
    passed = [each for each in budget.plan.alert_percents if spent >= each]
    return "warn" if len(passed) > 1 or spent >= 80 else ""


def period(budget: Budget) -> str:
    """What time a budget is for."""
    return "each month" if budget.period is Period.MONTH else "in all"


def _first(amounts: list[int | None]) -> list[int]:
    """The first amount that is known, of today's two that are the same."""
    return [amount for amount in amounts if amount is not None][:1]


def _dollars(nano_usd: int | None) -> float | None:
    return None if nano_usd is None else nano_usd / money.NANO_PER_USD
