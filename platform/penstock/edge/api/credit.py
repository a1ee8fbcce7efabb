"""The management API of an organisation's money: `/api/v1/credit` and `/api/v1/ledger`.

The tenant comes from the credential only: of a batch that charges several organisations, each sees its own
part. Only reading; operators change credit by `penstock credit` and `penstock ledger`.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar, overload
from uuid import UUID

import asyncpg
import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from penstock.access import keys
from penstock.access.keyring import Principal
from penstock.edge.api.usage_questions import midnight
from penstock.edge.refusals import BadRequest, NotFound
from penstock_base import money
from penstock_billing import books, wallets
from penstock_billing.books import ChargedRequest, Transaction
from penstock_billing.errors import UnknownTransaction
from penstock_billing.ledger import AccountKind, TransactionKind
from penstock_billing.wallets import WalletState

Choice = TypeVar("Choice", bound=StrEnum)
LIMIT_DEFAULT, LIMIT_MAX = 50, 200
PRIVATE = frozenset({TransactionKind.USAGE, TransactionKind.LEASE_GRANT, TransactionKind.LEASE_RELEASE})
"""Kinds whose reference speaks of our machinery, which is nobody else's matter."""


def routes(pool: asyncpg.Pool) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    @get("/api/v1/credit")
    async def show_credit(principal: NamedDependency[Principal]) -> dict[str, Any]:
        found = await wallets.states(pool, principal.organisation_id)
        names = await project_names(pool, {state.wallet.project_id for state in found})
        own = {state.wallet.project_id for state in found if state.named}
        payer = principal.project_id if principal.project_id in own else 0
        return {"data": [wallet(state, names, pays=state.wallet.project_id == payer) for state in found]}

    @get("/api/v1/ledger")
    async def show_ledger(
        principal: NamedDependency[Principal],
        account: FromQuery[str | None] = None,
        kind: FromQuery[str | None] = None,
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        before: FromQuery[int | None] = None,
        limit: FromQuery[int] = LIMIT_DEFAULT,
    ) -> dict[str, Any]:
        first, last = day("since", since), day("until", until)
        found = await books.transactions(
            pool,
            principal.organisation_id,
            account=chosen("account", account, AccountKind),
            kinds=books.NOT_LEASES if kind is None else frozenset({chosen("kind", kind, TransactionKind)}),
            since=midnight(first) if first else None,
            until=midnight(last + timedelta(days=1)) if last else None,
            before=books.NUMBER_MAX if before is None else min(max(before, 0), books.NUMBER_MAX),
            limit=checked_limit(limit),
        )
        names = await project_names(pool, {line.project_id for each in found for line in each.entries})
        more = found[-1].id if len(found) == limit else None
        return {"data": [transaction(each, names) for each in found], "next_before": more}

    @get("/api/v1/ledger/{number:int}")
    async def show_transaction(
        principal: NamedDependency[Principal], number: FromPath[int]
    ) -> dict[str, Any]:
        booked = await find(pool, principal, number)
        names = await project_names(pool, {line.project_id for line in booked.entries})
        return transaction(booked, names)

    @get("/api/v1/ledger/{number:int}/requests")
    async def show_requests(
        principal: NamedDependency[Principal],
        number: FromPath[int],
        after: FromQuery[str | None] = None,
        limit: FromQuery[int] = LIMIT_DEFAULT,
    ) -> dict[str, Any]:
        booked = await find(pool, principal, number)
        if booked.kind is not TransactionKind.USAGE:
            raise NotFound(f"transaction {number} is no usage: it has no requests")
        found = await books.charged_requests(pool, booked, after=place(after), limit=checked_limit(limit))
        charged = await books.charged_wallets(pool, booked)
        more = found[-1] if len(found) == limit else None
        return {
            "data": [request(each) for each in found],
            "requests": sum(each.requests for each in charged),
            "cost_nano_usd": sum(each.cost_nano_usd for each in charged),
            "archived_days": await books.archived_days(pool, booked),
            "next_after": f"{more.ended_at.isoformat()}/{more.event_id}" if more else None,
        }

    return [show_credit, show_ledger, show_transaction, show_requests]


async def find(pool: asyncpg.Pool, principal: Principal, number: int) -> Transaction:
    """The organisation's part of a transaction, or NotFound."""
    try:
        return await books.transaction(pool, number, principal.organisation_id)
    except UnknownTransaction:
        raise NotFound(f"there is no transaction {number} here") from None


async def project_names(pool: asyncpg.Pool, projects: set[int]) -> dict[int, str]:
    """Ids to names."""
    _, names = await keys.names(pool, set(), projects)
    return names


def wallet(state: WalletState, names: dict[int, str], *, pays: bool) -> dict[str, Any]:
    """A wallet, with its dollars as text beside the exact integers."""
    shown: dict[str, Any] = {
        "project": names.get(state.wallet.project_id),
        "pays_for_this_key": pays,
        "funding": state.funding.value,
        "strict": state.strict,
        "days_left": state.days_left,
    }
    return (
        shown
        | amounts(
            available=state.available_nano_usd,
            prepaid=state.prepaid_nano_usd,
            promotional=state.promotional_nano_usd,
            leased=state.leased_nano_usd,
            owed=state.owed_nano_usd,
            owed_max=state.owed_max_nano_usd,
            burn_per_day=state.burn_per_day_nano_usd,
        )
        | {
            "promotions": [
                {"id": each.id, "expires_at": each.expires_at, "note": each.note}
                | amounts(given=each.amount_nano_usd, left=each.left_nano_usd)
                for each in state.promotions
            ]
        }
    )


def transaction(booked: Transaction, names: dict[int, str]) -> dict[str, Any]:
    """A transaction with the organisation's own entries."""
    return {
        "id": booked.id,
        "kind": booked.kind.value,
        "booked_at": booked.booked_at,
        "period_start": booked.period_start,
        "period_end": booked.period_end,
        "reference": None if booked.kind in PRIVATE else booked.ref,
        "note": booked.note,
        "corrects": booked.corrects,
        "entries": [
            {"account": line.kind.value, "project": names.get(line.project_id)}
            | amounts(amount=line.amount_nano_usd)
            for line in booked.entries
        ],
    }


def request(charged: ChargedRequest) -> dict[str, Any]:
    """A request behind an entry."""
    fields: dict[str, Any] = msgspec.to_builtins(charged)
    shown = ("request_id", "ended_at", "model", "key_id", "funding", "input_tokens", "output_tokens")
    return {name: fields[name] for name in shown} | amounts(cost=charged.cost_nano_usd)


def amounts(**nano_usd: int | None) -> dict[str, Any]:
    """Each amount as an exact integer and as dollars."""
    shown: dict[str, Any] = {}
    for name, amount in nano_usd.items():
        shown[f"{name}_nano_usd"] = amount
        shown[f"{name}_usd"] = None if amount is None else money.nano_to_usd(amount)
    return shown


@overload
def chosen(param: str, text: str, choices: type[Choice]) -> Choice: ...


@overload
def chosen(param: str, text: str | None, choices: type[Choice]) -> Choice | None: ...


def chosen(param: str, text: str | None, choices: type[Choice]) -> Choice | None:
    """One of an enum's values; raises BadRequest with all of them."""
    if text is None:
        return None
    try:
        return choices(text)
    except ValueError:
        values = ", ".join(choice.value for choice in choices)
        raise BadRequest(f"{param} is {text[:40]!r}: it may be {values}", param=param) from None


def checked_limit(limit: int) -> int:
    """How many to show; raises BadRequest."""
    if not 1 <= limit <= LIMIT_MAX:
        raise BadRequest(f"limit is {limit}: 1 to {LIMIT_MAX} are shown at once", param="limit")
    return limit


def place(after: str | None) -> tuple[datetime, UUID]:
    """Where a page begins, from the `next_after` of the one before; raises BadRequest."""
    if after is None:
        return books.BEGINNING
    moment, _, event_id = after.partition("/")
    try:
        found = datetime.fromisoformat(moment.replace(" ", "+"))
        if found.tzinfo is not None:
            return found, UUID(event_id)
    except ValueError:
        pass
    raise BadRequest("after is the next_after of the page before", param="after")


def day(param: str, text: str | None) -> date | None:
    """A UTC day; raises BadRequest."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"{param} is {text[:40]!r}: write a day as 2026-11-21", param=param) from None
