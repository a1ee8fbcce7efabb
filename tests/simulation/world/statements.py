"""What the billing room's SQL does, statement by statement, over the model's tables.

A row's key is what makes it unique in Postgres; amounts are integers as there. `test_postgres_model.py` runs
the same calls against these and against the real SQL and compares every table.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from world.postgres import STATEMENTS, Transaction

from penstock_billing import ledger, partitions, shipping
from penstock_billing.record import UsageRecord

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIELDS = {name: place for place, name in enumerate(UsageRecord.__struct_fields__)}
COUNTED = (
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "images",
    "audio_ms",
    "documents",
)
MEASURES = [FIELDS[name] for name in (*COUNTED, "cost_nano_usd")]
NOTHING: list[dict[str, Any]] = []


def statement(sql: str) -> Any:
    """Register a function as the meaning of a query."""

    def register(function: Any) -> Any:
        STATEMENTS[sql] = function
        return function

    return register


# Shipping.


@statement(shipping.SQL["create_stage"])
def create_stage(transaction: Transaction) -> Any:
    return NOTHING


@statement(shipping.SQL["add_cursor"])
def add_cursor(transaction: Transaction, journal: str) -> Any:
    if transaction.get("journal_cursor", journal) is None:
        transaction.put("journal_cursor", journal, (0, 0, transaction.server.now()))
    return NOTHING


@statement(shipping.SQL["lock_cursor"])
def lock_cursor(transaction: Transaction, journal: str) -> Any:
    transaction.lock("advisory", 7306001203, shared=True)
    if transaction.get("journal_cursor", journal) is None:
        return NOTHING
    transaction.lock("journal_cursor", journal)
    shipped_bytes, _, shipped_at = transaction.get("journal_cursor", journal)
    server = transaction.server
    return [
        {
            "shipped_bytes": shipped_bytes,
            "shipped_at": shipped_at,
            "now": server.now(),
            "transaction_id": server.next("ledger_transaction"),
        }
    ]


@statement(shipping.SQL["take_over"])
def take_over(transaction: Transaction, transaction_id: int) -> Any:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    sums: dict[tuple[str, Any], tuple[int, ...]] = {}
    for row in transaction.stage:
        ended_at = EPOCH + timedelta(milliseconds=row[FIELDS["ended_ms"]])
        identity = (ended_at, bytes(row[0].bytes))
        if transaction.get("usage_event", identity) is not None:
            continue
        cost = row[FIELDS["cost_nano_usd"]]
        transaction.put("usage_event", identity, (*row, transaction_id if cost else None))
        for place, added in roll_ups(transaction, row, ended_at):
            before = sums.get(place)
            sums[place] = added if before is None else add(before, added)
        wallet = (
            row[FIELDS["organisation_id"]],
            str(row[FIELDS["funding"]]),
            row[FIELDS["wallet_project_id"]],
        )
        group = groups.setdefault(wallet, [0, 0, ended_at, ended_at])
        group[0] += 1
        group[1] += cost
        group[2], group[3] = min(group[2], ended_at), max(group[3], ended_at)
    for (table, key), added in sorted(sums.items(), key=lambda item: item[0]):
        # Locked before it is read: another transaction may be about to change it.
        transaction.lock(table, key)
        before = transaction.get(table, key)
        transaction.put(table, key, added if before is None else add(before, added))
    transaction.stage.clear()
    return [
        {
            "organisation_id": organisation_id,
            "funding": funding,
            "wallet_project_id": project_id,
            "records": records,
            "cost_nano_usd": cost,
            "earliest": earliest,
            "latest": latest,
        }
        for (organisation_id, funding, project_id), (records, cost, earliest, latest) in groups.items()
    ]


def roll_ups(transaction: Transaction, row: tuple[Any, ...], ended_at: datetime) -> Any:
    """What an event adds: to its minute, to an hour and day that are summed up already, to spending."""
    minute = ended_at.replace(second=0, microsecond=0)
    counts = (1, *[row[place] for place in MEASURES])
    yield ("usage_minute", slot(row, minute)), counts
    if minute < (transaction.get("roll_up_mark", "hour") or EPOCH):
        hour = slot(row, minute.replace(minute=0))
        yield ("usage_hour", hour), counts
        for place in earned_at(hour):
            yield ("earned_hour", place), earned(counts)
    if minute < (transaction.get("roll_up_mark", "day") or EPOCH):
        yield ("usage_day", slot(row, minute.replace(hour=0, minute=0))), counts
    if cost := row[FIELDS["cost_nano_usd"]]:
        month = ended_at.date().replace(day=1)
        key = (row[FIELDS["organisation_id"]], row[FIELDS["project_id"]], row[FIELDS["key_id"]], month)
        yield ("spend_month", key), (cost,)


def earned_at(hour: tuple[Any, ...]) -> list[tuple[datetime, str, int]]:
    """The rows over all tenants that an hour's usage is in: its model's and its organisation's."""
    return [(hour[1], hour[4], 0), (hour[1], "", hour[0])]


def earned(counts: tuple[int, ...]) -> tuple[int, int, int]:
    """Requests, tokens and cost of an hour's sums."""
    measured = dict(zip(("requests", *COUNTED, "cost_nano_usd"), counts, strict=True))
    return (
        measured["requests"],
        measured["input_tokens"] + measured["output_tokens"],
        measured["cost_nano_usd"],
    )


def add(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def slot(row: tuple[Any, ...], since: datetime) -> tuple[Any, ...]:
    """The identity of a roll-up row."""
    return (
        row[FIELDS["organisation_id"]],
        since,
        row[FIELDS["project_id"]],
        row[FIELDS["key_id"]],
        row[FIELDS["model"]],
        row[FIELDS["price_version"]],
        str(row[FIELDS["outcome"]]),
        row[FIELDS["endpoint"]],
    )


@statement(shipping.SQL["reject"])
def reject(transaction: Transaction, journal: str, positions: Any, bodies: Any, problems: Any) -> Any:
    for position, body, problem in zip(positions, bodies, problems, strict=True):
        if transaction.get("rejected_frame", (journal, position)) is None:
            transaction.put("rejected_frame", (journal, position), (body, problem))
    return NOTHING


@statement(shipping.SQL["move_cursor"])
def move_cursor(transaction: Transaction, journal: str, shipped_bytes: int, records: int) -> Any:
    _, before, _ = transaction.get("journal_cursor", journal)
    transaction.put("journal_cursor", journal, (shipped_bytes, before + records, transaction.server.now()))
    return NOTHING


# The ledger.


def post(transaction: Transaction, transaction_id: int, amounts: dict[tuple[int, int, str], int]) -> None:
    """Balances and entries of a ledger transaction, which must sum to zero."""
    if sum(amounts.values()) != 0 or not amounts:
        raise asyncpg.CheckViolationError(f"entries of ledger transaction {transaction_id} do not sum to 0")
    for account in sorted(amounts):
        transaction.lock("account", account)
    for account, amount in sorted(amounts.items()):
        if amount == 0:
            raise asyncpg.CheckViolationError("an entry of 0")
        transaction.put("account", account, (transaction.get("account", account) or 0) + amount)
        transaction.put("entry", (transaction_id, account), amount)


def add_ledger_transaction(
    transaction: Transaction, transaction_id: int, ref: str, kind: str, *rest: Any
) -> None:
    """The ledger transaction's own row; its reference is unique."""
    transaction.lock("ledger_ref", ref)
    if transaction.get("ledger_ref", ref) is not None:
        raise asyncpg.UniqueViolationError(f"ledger transaction {ref} is there")
    transaction.put("ledger_ref", ref, transaction_id)
    transaction.put("ledger_transaction", transaction_id, (ref, kind, *rest))


def open_lease(transaction: Transaction, boot_id: str, organisation_id: int, project_id: int) -> int | None:
    """The id of the open lease of a boot on a wallet."""
    for lease_id, lease in transaction.rows("lease"):
        if (
            lease["boot_id"] == boot_id
            and lease["organisation_id"] == organisation_id
            and lease["project_id"] == project_id
            and lease["released_at"] is None
        ):
            return int(lease_id)
    return None


@statement(ledger.SQL["book_usage"])
def book_usage(
    transaction: Transaction,
    transaction_id: int,
    ref: str,
    earliest: datetime,
    latest: datetime,
    organisations: list[int],
    fundings: list[str],
    projects: list[int],
    costs: list[int],
    boot_id: str,
) -> Any:
    amounts: dict[tuple[int, int, str], int] = {}
    for organisation_id, funding, project_id, cost in zip(
        organisations, fundings, projects, costs, strict=True
    ):
        kind = "receivable"
        if funding == "prepaid":
            kind = "prepaid"
            lease_id = open_lease(transaction, boot_id, organisation_id, project_id)
            if lease_id is not None:
                transaction.lock("lease", lease_id)
                lease = transaction.get("lease", lease_id)
                transaction.put(
                    "lease", lease_id, lease | {"settled_nano_usd": lease["settled_nano_usd"] + cost}
                )
                kind = "lease"
        side = (organisation_id, project_id, kind)
        amounts[side] = amounts.get(side, 0) + cost
        earned = (organisation_id, 0, "revenue")
        amounts[earned] = amounts.get(earned, 0) - cost
    add_ledger_transaction(transaction, transaction_id, ref, "usage")
    post(transaction, transaction_id, amounts)
    return NOTHING


@statement(ledger.SQL["add_transaction"])
def add_transaction(
    transaction: Transaction,
    ref: str,
    kind: str,
    since: Any,
    until: Any,
    note: str,
    actor: str,
    corrects: Any,
) -> Any:
    transaction.lock("ledger_ref", ref)
    transaction_id = transaction.server.next("ledger_transaction")
    if transaction.get("ledger_ref", ref) is not None:
        return NOTHING
    add_ledger_transaction(transaction, transaction_id, ref, kind, corrects)
    return [{"id": transaction_id}]


@statement(ledger.SQL["post"])
def post_entries(
    transaction: Transaction,
    transaction_id: int,
    organisations: list[int],
    projects: list[int],
    kinds: list[str],
    amounts: list[int],
) -> Any:
    sides = zip(organisations, projects, kinds, strict=True)
    post(transaction, transaction_id, dict(zip(sides, amounts, strict=True)))
    return NOTHING


@statement(ledger.SQL["find_transaction"])
def find_transaction(transaction: Transaction, ref: str) -> Any:
    transaction_id = transaction.get("ledger_ref", ref)
    if transaction_id is None:
        return NOTHING
    row = transaction.get("ledger_transaction", transaction_id)
    found = sorted(
        (account, amount)
        for (booked, account), amount in transaction.rows("entry")
        if booked == transaction_id
    )
    return [
        {
            "id": transaction_id,
            "kind": row[1],
            "corrects": row[2] if len(row) > 2 else None,
            "organisation_id": account[0],
            "project_id": account[1],
            "account_kind": account[2],
            "amount_nano_usd": amount,
        }
        for account, amount in found
    ]


# Partitions have no meaning here: one table holds all days.


@statement(partitions.SQL["lock"])
def lock_partitions(transaction: Transaction) -> Any:
    transaction.lock("advisory", 7306001202)
    return NOTHING


@statement(partitions.SQL["ensure"])
def ensure_partitions(transaction: Transaction, days: int) -> Any:
    return [{"count": 0}]
