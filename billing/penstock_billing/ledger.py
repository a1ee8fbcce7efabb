"""The ledger: double entry in integer nano-dollars, only ever added to.

A booking is a transaction with its entries, which sum to zero here and again in the schema. Its reference
says why it was booked, and can be used once: the same booking again is recognised, another one under it is
refused. A mistake is made good by a correction, which names what it corrects.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.errors import LedgerRefused, ReferenceReused

SQL = queries.load("penstock_billing", "ledger.sql")

AMOUNT_MAX = 2**63 - 1


class AccountKind(enum.StrEnum):
    """What an account holds; positive is what we have or are owed, negative what we owe or have earned."""

    RECEIVABLE = "receivable"
    """What a wallet owes us for usage that is not paid yet."""
    REVENUE = "revenue"
    """What we earned; negative."""
    CASH = "cash"
    """What the organisation paid us."""
    PREPAID = "prepaid"
    """Credit that was paid for and is not used; negative."""
    PROMOTIONAL = "promotional"
    """Credit that was given and is not used; negative."""
    PROMOTION_COST = "promotion_cost"
    """What we gave as promotional credit."""
    LEASE = "lease"
    """Credit that gateways hold to admit requests by; negative."""
    BREAKAGE = "breakage"
    """Promotional credit that expired; negative."""
    CONCESSION = "concession"
    """What we gave back of what was charged."""


class TransactionKind(enum.StrEnum):
    """Why money moved."""

    USAGE = "usage"
    """Requests, charged to the wallets that admitted them."""
    MINUTES = "minutes"
    """Endpoint-minutes and instance-minutes."""
    TOP_UP = "top_up"
    """Credit was paid for."""
    PROMOTION = "promotion"
    """Credit was given."""
    PROMOTION_EXPIRY = "promotion_expiry"
    """Given credit was not used in time."""
    LEASE_GRANT = "lease_grant"
    """Credit was lent to a gateway."""
    LEASE_RELEASE = "lease_release"
    """What a gateway did not need went back."""
    PAYMENT = "payment"
    """What was owed was paid."""
    REFUND = "refund"
    """Credit or a payment was paid back."""
    CORRECTION = "correction"
    """A charge was given back."""


class Account(msgspec.Struct, frozen=True, order=True):
    """One account: an organisation's (project 0), or that of one of its projects' wallets."""

    organisation_id: int
    project_id: int
    kind: AccountKind


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction to be booked."""

    ref: str
    """Why, once: unique for ever."""
    kind: TransactionKind
    entries: dict[Account, int]
    """Nano-dollars to add to each account; they sum to 0 and none is 0."""
    happened_at: datetime | None = None
    """When what it books happened; by default now."""
    until: datetime | None = None
    """When the last of it happened, where it books a period."""
    note: str = ""
    actor: str = ""
    corrects: int | None = None
    """Id of the transaction that this one makes good."""


class Booked(msgspec.Struct, frozen=True):
    """A transaction in the ledger; `repeated` says that it was there already."""

    id: int
    repeated: bool


def validate(booking: Booking) -> None:
    """Raise LedgerRefused unless the booking moves money and its entries sum to 0."""
    amounts = booking.entries.values()
    if len(amounts) < 2 or 0 in amounts:
        raise LedgerRefused(f"{booking.ref}: a transaction has two entries or more, and none of 0")
    if sum(amounts) != 0:
        raise LedgerRefused(f"{booking.ref}: the entries sum to {sum(amounts)} nano-dollars, not to 0")
    if any(abs(amount) > AMOUNT_MAX for amount in amounts):
        raise LedgerRefused(f"{booking.ref}: an amount is beyond {AMOUNT_MAX} nano-dollars")


async def book(connection: asyncpg.Connection, booking: Booking) -> Booked:
    """Book a transaction, once however often it is asked for.

    Part of the caller's database transaction where there is one. Raises LedgerRefused for what is no
    transaction, ReferenceReused when the reference was used for another one; then nothing is booked.
    """
    validate(booking)
    since = booking.happened_at or datetime.now(UTC)
    async with connection.transaction():
        added = await connection.fetchval(
            SQL["add_transaction"],
            booking.ref,
            booking.kind.value,
            since,
            booking.until or since,
            booking.note,
            booking.actor,
            booking.corrects,
        )
        if added is None:
            return await _repeated(connection, booking)
        accounts = sorted(booking.entries)
        await connection.execute(
            SQL["post"],
            added,
            [account.organisation_id for account in accounts],
            [account.project_id for account in accounts],
            [account.kind.value for account in accounts],
            [booking.entries[account] for account in accounts],
        )
    return Booked(added, repeated=False)


def account_of(row: asyncpg.Record) -> Account:
    """Read the account out of a row that names one."""
    return Account(row["organisation_id"], row["project_id"], AccountKind(row["account_kind"]))


async def _repeated(connection: asyncpg.Connection, booking: Booking) -> Booked:
    """Recognise a booking that is in the ledger, or raise ReferenceReused."""
    rows = await connection.fetch(SQL["find_transaction"], booking.ref)
    entries = {account_of(row): row["amount_nano_usd"] for row in rows}
    first = rows[0]
    same = (first["kind"], first["corrects"], entries) == (booking.kind, booking.corrects, booking.entries)
    if not same:
        raise ReferenceReused(f"{booking.ref} was booked before as another transaction ({first['id']})")
    return Booked(first["id"], repeated=True)
