"""Wallets as people see them: how each pays, what it has, and credit that is paid for.

Changing how a wallet pays touches nothing that was admitted: a request is paid as it was when it was let in,
whenever its record arrives. Gateways follow within a second or two; the credit that they hold of a wallet
that is not prepaid any more comes back about a minute after the last request that used it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from penstock_billing import ledger, minute_usage, promotions, usage, wishes
from penstock_billing.leases import Wallet
from penstock_billing.ledger import Account, AccountKind, Booked, TransactionKind
from penstock_billing.promotions import SQL, Promotion
from penstock_billing.record import Funding
from penstock_billing.wishes import Wish

BURN_DAYS = 7
"""What is spent per day, for requests and minutes, is the mean of so many days."""

Database = asyncpg.Connection | asyncpg.Pool


class WalletState(msgspec.Struct, kw_only=True):
    """One wallet; amounts in nano-dollars."""

    wallet: Wallet
    funding: Funding
    named: bool
    """Whether it was said how it pays; a project's wallet that was not is its organisation's."""
    strict: bool
    owed_max_nano_usd: int | None
    prepaid_nano_usd: int
    """Paid for, not used, and held by no gateway."""
    promotional_nano_usd: int
    """Given, not used, and held by no gateway."""
    leased_nano_usd: int
    """Held by gateways; both kinds."""
    owed_nano_usd: int
    promotions: list[Promotion]
    burn_per_day_nano_usd: int

    @property
    def available_nano_usd(self) -> int:
        """All that may still be spent."""
        return self.prepaid_nano_usd + self.promotional_nano_usd + self.leased_nano_usd

    @property
    def days_left(self) -> int | None:
        """How long prepaid credit lasts at the present rate; None where nothing is spent, or all is owed."""
        if self.funding is not Funding.PREPAID or not self.burn_per_day_nano_usd:
            return None
        return max(0, self.available_nano_usd) // self.burn_per_day_nano_usd


async def states(
    connection: Database, organisation_id: int, now: datetime | None = None
) -> list[WalletState]:
    """Every wallet of an organisation, its own first."""
    rows = await connection.fetch(SQL["wallets"], organisation_id)
    spent = {row["project_id"]: 0 for row in rows if row["named"] or not row["project_id"]}
    since = (now or datetime.now(UTC)).replace(second=0, microsecond=0) - timedelta(days=BURN_DAYS)
    lately = usage.Question(
        organisation_id=organisation_id, since=since, until=since + timedelta(days=BURN_DAYS + 1)
    )
    minutes = await minute_usage.read(connection, lately)
    whole = await usage.totals(connection, organisation_id, lately.since, lately.until)
    for project_id in spent:
        if project_id:
            part = await usage.totals(connection, organisation_id, lately.since, lately.until, project_id)
            spent[project_id] = part.cost_nano_usd + sum(
                line.cost_nano_usd for line in minutes if line.project_id == project_id
            )
    # Who has no wallet of its own spends the organisation's.
    spent[0] = whole.cost_nano_usd + sum(line.cost_nano_usd for line in minutes) - sum(spent.values())
    return [
        WalletState(
            wallet=Wallet(organisation_id, row["project_id"]),
            funding=Funding(row["funding"] or Funding.POSTPAID),
            named=row["named"],
            strict=row["strict"],
            owed_max_nano_usd=row["owed_max_nano_usd"],
            prepaid_nano_usd=row["prepaid_nano_usd"],
            promotional_nano_usd=row["promotional_nano_usd"],
            leased_nano_usd=row["leased_nano_usd"],
            owed_nano_usd=row["owed_nano_usd"],
            promotions=[
                promotion
                for promotion in (
                    await promotions.count(connection, Wallet(organisation_id, row["project_id"]))
                ).promotions
                if promotion.left_nano_usd
            ],
            burn_per_day_nano_usd=spent.get(row["project_id"], 0) // BURN_DAYS,
        )
        for row in rows
    ]


async def set_terms(
    connection: Database,
    wallet: Wallet,
    funding: Funding,
    *,
    strict: bool = False,
    owed_max_nano_usd: int | None = None,
) -> None:
    """Say how a wallet pays from now on; a project gets a wallet of its own by that."""
    await connection.execute(
        SQL["set_wallet"], wallet.organisation_id, wallet.project_id, funding.value, strict, owed_max_nano_usd
    )


async def top_up(connection: asyncpg.Connection, wish: Wish, wallet: Wallet) -> Booked:
    """Book that credit was paid for. Raises ReferenceReused and LedgerRefused."""

    async def make() -> Booked:
        entries = {
            Account(wallet.organisation_id, wallet.project_id, AccountKind.CASH): wish.amount_nano_usd,
            Account(wallet.organisation_id, wallet.project_id, AccountKind.PREPAID): -wish.amount_nano_usd,
        }
        return await ledger.book(connection, wish.booking(TransactionKind.TOP_UP, entries))

    return await wishes.once(
        connection,
        wish,
        TransactionKind.TOP_UP,
        wallet.organisation_id,
        make,
        about={"project_id": wallet.project_id},
    )
