"""What the ledger says: balances, transactions, and the way from an entry to the requests behind it.

Whoever names an organisation sees that organisation's entries only; without one, an operator sees all.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.errors import UnknownTransaction
from penstock_billing.ledger import AccountKind, TransactionKind
from penstock_billing.record import Funding

SQL = queries.load("penstock_billing", "books.sql")

EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
NUMBER_MAX = 2**63 - 1
BEGINNING = (EVER[0], UUID(int=0))
"""Where the list of a transaction's requests begins."""

NOT_LEASES = frozenset(TransactionKind) - {TransactionKind.LEASE_GRANT, TransactionKind.LEASE_RELEASE}

MACHINES = frozenset(
    {
        TransactionKind.USAGE,
        TransactionKind.MINUTES,
        TransactionKind.LEASE_GRANT,
        TransactionKind.LEASE_RELEASE,
    }
)
"""Kinds that are booked all the time; the others are people's, and few."""
EVERYWHERE = frozenset({None, AccountKind.RECEIVABLE, AccountKind.REVENUE, AccountKind.LEASE})
"""Accounts that a good part of all transactions moves; None is any."""

Database = asyncpg.Connection | asyncpg.Pool


class Balance(msgspec.Struct, frozen=True):
    """One account; its sign is explained at AccountKind."""

    organisation_id: int
    project_id: int
    kind: AccountKind
    posted_nano_usd: int


class Line(msgspec.Struct, frozen=True):
    """An entry: what a transaction added to an account."""

    organisation_id: int
    project_id: int
    kind: AccountKind
    amount_nano_usd: int


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A movement of money, with its entries, or those of the organisation that was asked about."""

    id: int
    ref: str
    kind: TransactionKind
    period_start: datetime
    period_end: datetime
    booked_at: datetime
    note: str
    actor: str
    corrects: int | None
    entries: list[Line]


class ChargedWallet(msgspec.Struct, frozen=True):
    """What a usage transaction's requests cost one wallet."""

    organisation_id: int
    project_id: int
    funding: Funding
    requests: int
    cost_nano_usd: int


class ChargedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request behind an entry."""

    event_id: UUID
    ended_at: datetime
    organisation_id: int
    wallet_project_id: int
    project_id: int
    key_id: str
    request_id: str
    model: str
    funding: Funding
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int

    @property
    def place(self) -> tuple[datetime, UUID]:
        """Where it stands in the list: the next page begins behind it."""
        return self.ended_at, self.event_id


class ChargedMinutes(msgspec.Struct, frozen=True, kw_only=True):
    """Minutes behind an entry."""

    interval_id: int
    kind: str
    subject: str
    priced_as: str
    since: datetime
    until: datetime
    organisation_id: int
    project_id: int
    minutes: int
    cost_nano_usd: int


async def balances(connection: Database, organisation_id: int | None = None) -> list[Balance]:
    """Every account's balance, in the order of organisation, project and kind."""
    rows = await connection.fetch(SQL["balances"], organisation_id)
    return [
        Balance(row["organisation_id"], row["project_id"], AccountKind(row["kind"]), row["posted_nano_usd"])
        for row in rows
    ]


async def transactions(
    connection: Database,
    organisation_id: int | None = None,
    *,
    account: AccountKind | None = None,
    kinds: frozenset[TransactionKind] = NOT_LEASES,
    project_id: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int = NUMBER_MAX,
    limit: int = 50,
) -> list[Transaction]:
    """The latest transactions of these kinds that moved one of the accounts asked for, newest first.

    Without kinds, those that lend credit to gateways and take it back are left out: they are many, and leave
    the wallet with what it has.
    Booked in [since, until); the next page is `before` the last one's number.
    """
    if not kinds & MACHINES:
        query = SQL["transactions_of_people"]
    elif organisation_id is None and account in EVERYWHERE:
        query = SQL["transactions"]
    else:
        query = SQL["transactions_of_accounts"]
    rows = await connection.fetch(
        query,
        organisation_id,
        account.value if account else None,
        since or EVER[0],
        until or EVER[1],
        before,
        limit,
        project_id,
        sorted(kinds),
    )
    lines: dict[int, list[Line]] = {row["id"]: [] for row in rows}
    for entry in await connection.fetch(SQL["entries"], list(lines), organisation_id):
        lines[entry["transaction_id"]].append(_line(entry))
    return [_transaction(row, lines[row["id"]]) for row in rows]


async def transaction(
    connection: Database, transaction_id: int, organisation_id: int | None = None
) -> Transaction:
    """One transaction. Raises UnknownTransaction, also when the organisation has no entry in it."""
    row, entries = None, []
    if 0 < transaction_id <= NUMBER_MAX:
        row = await connection.fetchrow(SQL["transaction"], transaction_id)
        entries = await connection.fetch(SQL["entries"], [transaction_id], organisation_id)
    if row is None or not entries:
        raise UnknownTransaction(f"there is no ledger transaction {transaction_id} here")
    return _transaction(row, [_line(entry) for entry in entries])


async def corrected_by(connection: Database, transaction_id: int) -> list[int]:
    """Numbers of the transactions that make this one good."""
    return [row["id"] for row in await connection.fetch(SQL["corrected_by"], transaction_id)]


async def charged_wallets(connection: Database, booked: Transaction) -> list[ChargedWallet]:
    """Sum the requests behind a usage transaction by wallet: each sum is that wallet's entry."""
    rows = await connection.fetch(
        SQL["charged_wallets"], booked.id, _organisations(booked), booked.period_start, booked.period_end
    )
    return [ChargedWallet(**(dict(row) | {"funding": Funding(row["funding"])})) for row in rows]


async def charged_requests(
    connection: Database,
    booked: Transaction,
    *,
    after: tuple[datetime, UUID] = BEGINNING,
    limit: int = 100,
) -> list[ChargedRequest]:
    """The requests behind a usage transaction, in the order in which they ended; `after` pages on."""
    rows = await connection.fetch(
        SQL["charged_requests"],
        booked.id,
        _organisations(booked),
        booked.period_start,
        booked.period_end,
        *after,
        limit,
    )
    return [
        ChargedRequest(
            **(dict(row) | {"funding": Funding(row["funding"]), "event_id": UUID(int=row["event_id"].int)})
        )
        for row in rows
    ]


async def charged_minutes(
    connection: Database, booked: Transaction, limit: int = 1000
) -> list[ChargedMinutes]:
    """The minutes behind a transaction for minutes."""
    rows = await connection.fetch(SQL["charged_minutes"], booked.id, _organisations(booked), limit)
    return [ChargedMinutes(**dict(row)) for row in rows]


async def archived_days(connection: Database, booked: Transaction) -> list[date]:
    """Days of its period whose events are in a file only: their requests cannot be listed from here."""
    rows = await connection.fetch(SQL["archived_days"], booked.period_start, booked.period_end)
    return [row["day"] for row in rows]


def charged_nano_usd(booked: Transaction, charged: ChargedWallet) -> int:
    """What the transaction's entries say that a wallet paid for requests of that funding."""
    kinds = WALLET_SIDES[charged.funding]
    return sum(
        line.amount_nano_usd
        for line in booked.entries
        if (line.organisation_id, line.project_id) == (charged.organisation_id, charged.project_id)
        and line.kind in kinds
    )


WALLET_SIDES = {
    Funding.POSTPAID: frozenset({AccountKind.RECEIVABLE}),
    Funding.PREPAID: frozenset({AccountKind.LEASE, AccountKind.PREPAID, AccountKind.PROMOTIONAL}),
}
"""The accounts that requests are paid from."""


def _organisations(booked: Transaction) -> list[int]:
    return sorted({line.organisation_id for line in booked.entries})


def _line(row: asyncpg.Record) -> Line:
    return Line(row["organisation_id"], row["project_id"], AccountKind(row["kind"]), row["amount_nano_usd"])


def _transaction(row: asyncpg.Record, lines: list[Line]) -> Transaction:
    return Transaction(**(dict(row) | {"kind": TransactionKind(row["kind"])}), entries=lines)
