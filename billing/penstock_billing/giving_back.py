"""Corrections and refunds: what was booked is made good by a new transaction, never by a change.

A charge is given back to where it was paid from: to what is owed, or to the credit. It is booked as a
concession, beside what was earned, so that what was earned stays what the requests cost. No more can be given
back than was charged, for a request, for a transaction and for an organisation, however many try at once.
"""

from __future__ import annotations

import asyncpg

from penstock_base import money, queries
from penstock_billing import books, ledger, wishes
from penstock_billing.books import Transaction
from penstock_billing.errors import AmountRefused, LedgerRefused, UnknownRequest
from penstock_billing.ledger import Account, AccountKind, Booked, TransactionKind
from penstock_billing.record import Funding
from penstock_billing.wishes import Wish

SQL = queries.load("penstock_billing", "giving_back.sql")

CHARGES = frozenset({TransactionKind.USAGE, TransactionKind.MINUTES})
TURNED_ROUND = frozenset(
    {TransactionKind.TOP_UP, TransactionKind.PAYMENT, TransactionKind.REFUND, TransactionKind.CORRECTION}
)
CREDIT_SIDES = (AccountKind.PREPAID, AccountKind.LEASE, AccountKind.PROMOTIONAL)


async def correct(
    connection: asyncpg.Connection,
    wish: Wish,
    transaction_id: int,
    organisation_id: int | None = None,
    project_id: int | None = None,
) -> Booked:
    """Give back a part of what a transaction charged, or turn a part of a top-up or payment round.

    A batch of usage charges several wallets: name the organisation, and the project whose wallet is meant.
    Raises UnknownTransaction, AmountRefused, LedgerRefused for a kind that cannot be corrected, and
    ReferenceReused.
    """
    booked = await books.transaction(connection, transaction_id, organisation_id)
    owner = _one({line.organisation_id for line in booked.entries}, transaction_id, "--organisation")

    async def make() -> Booked:
        if booked.kind in CHARGES:
            entries = await _concede(connection, wish, booked, owner, project_id)
        else:
            entries = await _turn_round(connection, wish, booked, owner)
        return await ledger.book(
            connection, wish.booking(TransactionKind.CORRECTION, entries, corrects=transaction_id)
        )

    return await wishes.once(
        connection, wish, TransactionKind.CORRECTION, owner, make, corrects=transaction_id
    )


async def refund_request(
    connection: asyncpg.Connection, wish: Wish, organisation_id: int, request_id: str
) -> Booked:
    """Give back what a request cost, or a part of it; an amount of 0 means all that is left.

    Raises UnknownRequest, AmountRefused and ReferenceReused.
    """
    event = await connection.fetchrow(SQL["request"], organisation_id, request_id)
    if event is None:
        raise UnknownRequest(
            f"no request {request_id[:100]!r} is recorded for this organisation "
            "(one of a day that is in an archive file only has to be restored first)"
        )
    charge_id: int | None = event["ledger_transaction_id"]
    if charge_id is None:
        raise AmountRefused(f"request {event['request_id']} cost nothing: there is nothing to refund")

    async def make() -> Booked:
        refunds = [
            row["transaction_id"]
            for row in await connection.fetch(SQL["refunds_of_request"], organisation_id, event["request_id"])
        ]
        refunded = await _conceded(connection, refunds, organisation_id, and_these=True)
        left = event["cost_nano_usd"] - refunded
        booked = await books.transaction(connection, charge_id, organisation_id)
        side = Funding(event["funding"])
        given = await _left_of_charge(connection, booked, organisation_id, event["wallet_project_id"])
        left = min(left, given[side])
        asked = wish.amount_nano_usd or left
        _within(
            asked, left, f"request {event['request_id']} cost {money.nano_to_usd(event['cost_nano_usd'])} USD"
        )
        entries = _concession(organisation_id, event["wallet_project_id"], {side: asked})
        made = await ledger.book(
            connection, wish.booking(TransactionKind.REFUND, entries, corrects=charge_id)
        )
        await connection.execute(SQL["add_refund"], made.id, organisation_id, event["request_id"])
        return made

    return await wishes.once(
        connection,
        wish,
        TransactionKind.REFUND,
        organisation_id,
        make,
        corrects=charge_id,
        about={"request_id": event["request_id"]},
    )


async def refund_amount(
    connection: asyncpg.Connection, wish: Wish, organisation_id: int, project_id: int = 0
) -> Booked:
    """Give back an amount that is no one request's: to a prepaid wallet's credit, else off what is owed.

    Raises AmountRefused beyond what the organisation was charged and not given back yet, and ReferenceReused.
    """

    async def make() -> Booked:
        earned = -await _balance(connection, organisation_id, None, AccountKind.REVENUE)
        conceded = await _balance(connection, organisation_id, None, AccountKind.CONCESSION)
        _within(
            wish.amount_nano_usd,
            earned - conceded,
            f"the organisation was charged {money.nano_to_usd(earned)} USD in all",
        )
        funding = await connection.fetchval(SQL["funding"], organisation_id, project_id)
        if funding is None and project_id:
            raise LedgerRefused(
                "the project has no wallet of its own: its organisation pays, so name no project"
            )
        funding = Funding(funding or Funding.POSTPAID)
        entries = _concession(organisation_id, project_id, {funding: wish.amount_nano_usd})
        return await ledger.book(connection, wish.booking(TransactionKind.REFUND, entries))

    about = {"project_id": project_id, "request_id": None}
    return await wishes.once(connection, wish, TransactionKind.REFUND, organisation_id, make, about=about)


async def _concede(
    connection: asyncpg.Connection, wish: Wish, booked: Transaction, owner: int, project_id: int | None
) -> dict[Account, int]:
    """Entries that give back a part of a charge, off what is owed first."""
    sides = {
        line.project_id
        for line in booked.entries
        if line.kind in {AccountKind.RECEIVABLE, *CREDIT_SIDES} and line.amount_nano_usd > 0
    }
    if project_id is None:
        project_id = _one(sides, booked.id, "--project (or --project '' for the organisation's own wallet)")
    left = await _left_of_charge(connection, booked, owner, project_id)
    why = f"this wallet's part of transaction {booked.id} is the limit"
    _within(wish.amount_nano_usd, sum(left.values()), why)
    owed = min(wish.amount_nano_usd, left[Funding.POSTPAID])
    return _concession(
        owner, project_id, {Funding.POSTPAID: owed, Funding.PREPAID: wish.amount_nano_usd - owed}
    )


async def _left_of_charge(
    connection: asyncpg.Connection, booked: Transaction, owner: int, project_id: int
) -> dict[Funding, int]:
    """What a charge took out of a wallet and was not given back yet, by where it came from."""
    left = dict.fromkeys(Funding, 0)
    for line in booked.entries:
        if line.project_id == project_id and line.kind in {AccountKind.RECEIVABLE, *CREDIT_SIDES}:
            left[_side(line.kind)] += line.amount_nano_usd
    for row in await connection.fetch(SQL["made_good"], [booked.id], owner):
        kind = AccountKind(row["kind"])
        if row["project_id"] == project_id and kind in {AccountKind.RECEIVABLE, *CREDIT_SIDES}:
            left[_side(kind)] += row["amount_nano_usd"]
    return left


async def _turn_round(
    connection: asyncpg.Connection, wish: Wish, booked: Transaction, owner: int
) -> dict[Account, int]:
    """The same entries the other way round, for a part of the amount."""
    if booked.kind not in TURNED_ROUND:
        raise LedgerRefused(
            f"transaction {booked.id} is a {booked.kind.value.replace('_', ' ')}, which is not corrected: "
            f"correct a charge, a top-up, a payment, a refund or a correction"
            f"{OTHER_WAYS.get(booked.kind, '')}"
        )
    moved = sum(line.amount_nano_usd for line in booked.entries if line.amount_nano_usd > 0)
    undone = 0
    for row in await connection.fetch(SQL["made_good"], [booked.id], owner):
        undone += max(0, row["amount_nano_usd"])
    _within(
        wish.amount_nano_usd, moved - undone, f"transaction {booked.id} moved {money.nano_to_usd(moved)} USD"
    )
    if len(booked.entries) > 2 and wish.amount_nano_usd != moved:
        raise AmountRefused(
            f"transaction {booked.id} moved more than two accounts: correct all of it, "
            f"{money.nano_to_usd(moved)} USD"
        )
    whole = wish.amount_nano_usd == moved
    entries = {
        Account(line.organisation_id, line.project_id, line.kind): -line.amount_nano_usd
        if whole
        else (-wish.amount_nano_usd if line.amount_nano_usd > 0 else wish.amount_nano_usd)
        for line in booked.entries
    }
    for account, amount in entries.items():
        if account.kind is AccountKind.PREPAID and amount > 0:
            unused = -await _balance(connection, owner, account.project_id, AccountKind.PREPAID)
            _within(amount, unused, "that would take back credit which was used")
    return entries


OTHER_WAYS = {
    TransactionKind.PROMOTION: "; a promotion is ended by `penstock credit expire`",
    TransactionKind.PROMOTION_EXPIRY: "; give the credit anew by `penstock credit promote`",
}


def _concession(owner: int, project_id: int, amounts: dict[Funding, int]) -> dict[Account, int]:
    """Entries that give amounts back: off what is owed (postpaid), to the credit (prepaid)."""
    entries = {Account(owner, project_id, AccountKind.CONCESSION): sum(amounts.values())}
    for funding, amount in amounts.items():
        if amount:
            entries[Account(owner, project_id, GIVEN_TO[funding])] = -amount
    return entries


GIVEN_TO = {Funding.POSTPAID: AccountKind.RECEIVABLE, Funding.PREPAID: AccountKind.PREPAID}


async def _conceded(
    connection: asyncpg.Connection, transactions: list[int], owner: int, *, and_these: bool
) -> int:
    """What transactions conceded, less what was taken back of it."""
    rows = list(await connection.fetch(SQL["made_good"], transactions, owner))
    if and_these:
        rows += await connection.fetch(books.SQL["entries"], transactions, owner)
    return sum(row["amount_nano_usd"] for row in rows if row["kind"] == AccountKind.CONCESSION)


async def _balance(
    connection: asyncpg.Connection, owner: int, project_id: int | None, kind: AccountKind
) -> int:
    balance: int = await connection.fetchval(SQL["balance"], owner, project_id, kind.value)
    return balance


def _side(kind: AccountKind) -> Funding:
    return Funding.POSTPAID if kind is AccountKind.RECEIVABLE else Funding.PREPAID


def _one(found: set[int], transaction_id: int, option: str) -> int:
    if len(found) != 1:
        raise LedgerRefused(
            f"transaction {transaction_id} charges {len(found)} of them: say which by {option}"
        )
    return next(iter(found))


def _within(asked: int, left: int, why: str) -> None:
    if not 0 < asked <= left:
        raise AmountRefused(
            f"{money.nano_to_usd(asked)} USD cannot be given back: {why}, and "
            f"{money.nano_to_usd(max(0, left))} USD of it is left to give back"
        )
