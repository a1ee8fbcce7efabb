"""What recorded usage would have cost under other prices: exact, since every request is priced again.

Nothing is changed. A request is re-rated as it was recorded: the same tokens, outcome and batch mark, one
rounding each; our own failures stay free. Every organisation is taken to pay the proposed prices, whichever
list it has; what the proposal does not name keeps what was charged.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.price_changes import Change
from penstock_billing.price_proposals import Proposal

SQL = queries.load("penstock_billing", "backtest.sql")


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """What was paid, and what would have been."""

    paid_nano_usd: int
    would_pay_nano_usd: int

    @property
    def difference_nano_usd(self) -> int:
        """Above 0: it would have cost more."""
        return self.would_pay_nano_usd - self.paid_nano_usd


class ModelAmounts(Amounts, frozen=True, kw_only=True):
    """One organisation's requests to one model."""

    organisation_id: int
    model: str
    proposed: bool
    """Whether the proposal names the model."""
    requests: int


class MinuteAmounts(Amounts, frozen=True, kw_only=True):
    """One organisation's minutes of one kind."""

    organisation_id: int
    kind: str
    subject: str
    proposed: bool
    minutes: int


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was used in [since, until), priced twice."""

    since: datetime
    until: datetime
    models: list[ModelAmounts]
    minutes: list[MinuteAmounts]
    archived_days: list[date]
    """Days whose events are in a file only, so that their requests are missing here."""

    @property
    def rows(self) -> list[ModelAmounts | MinuteAmounts]:
        """All of it."""
        return [*self.models, *self.minutes]

    @property
    def total(self) -> Amounts:
        """The sum over everything."""
        return total(self.rows)


def total(rows: Iterable[Amounts]) -> Amounts:
    """Sum up."""
    paid = would_pay = 0
    for row in rows:
        paid += row.paid_nano_usd
        would_pay += row.would_pay_nano_usd
    return Amounts(paid_nano_usd=paid, would_pay_nano_usd=would_pay)


async def simulate(
    connection: asyncpg.Connection,
    proposal: Proposal,
    since: datetime,
    until: datetime,
    organisation_ids: list[int] | None = None,
) -> Backtest:
    """Re-rate what ended in [since, until), of some organisations or of all, in one snapshot.

    Reads the window's events once (some 10 s per million), and none outside it.
    """
    versions = proposal.versions
    offers = [
        [getattr(version, name) for version in versions] for name in ("model", *Change.__struct_fields__)
    ]
    minutes = [list(column) for column in zip(*proposal.minute_prices, strict=True)] or [[], [], []]
    window = (since, until, organisation_ids)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return Backtest(
            since=since,
            until=until,
            models=[ModelAmounts(**row) for row in await connection.fetch(SQL["requests"], *window, *offers)],
            minutes=[
                MinuteAmounts(**row) for row in await connection.fetch(SQL["minutes"], *window, *minutes)
            ],
            archived_days=[row["day"] for row in await connection.fetch(SQL["archived_days"], since, until)],
        )
