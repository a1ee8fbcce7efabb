"""The bill: credit and what is owed, every booking, and the way from a booking to what it was for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access import labels
from penstock.access.sessions import Visitor
from penstock.edge.api import credit
from penstock.edge.api.usage_questions import midnight
from penstock.edge.refusals import BadRequest, NotFound
from penstock.portal import billing_view
from penstock.portal.frame import Frame
from penstock_billing import books, budgets, credit_days, usage, wallets
from penstock_billing.books import Transaction
from penstock_billing.errors import UnknownTransaction
from penstock_billing.ledger import TransactionKind

PAGE = 25
REQUESTS_SHOWN = 50
LATEST = 5
GIVEN_BACK = frozenset({TransactionKind.REFUND, TransactionKind.CORRECTION})
CREDIT_MOVED = frozenset(
    {
        TransactionKind.TOP_UP,
        TransactionKind.PROMOTION,
        TransactionKind.PROMOTION_EXPIRY,
        TransactionKind.PAYMENT,
    }
)
SHOWN = {
    "": ("Everything", books.NOT_LEASES),
    "charges": ("Charges", frozenset({TransactionKind.USAGE, TransactionKind.MINUTES})),
    "credit": ("Credit and payments", CREDIT_MOVED),
    "given-back": ("Refunds and corrections", GIVEN_BACK),
}
WORDS: dict[str, Any] = {
    "transactions": billing_view.TRANSACTIONS,
    "accounts": billing_view.ACCOUNTS,
    "effect": billing_view.effect,
    "reference": billing_view.reference,
}


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool = frame.world.pool

    @get("/billing")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        now, owner = datetime.now(UTC), visitor.organisation_id
        found, named, live, latest, fresh = await asyncio.gather(
            wallets.states(pool, owner, now),
            labels.of(pool, owner),
            budgets.live(pool, owner, now),
            books.transactions(pool, owner, kinds=CREDIT_MOVED | GIVEN_BACK, limit=LATEST),
            usage.freshness(pool, owner),
        )
        chosen = _wallet(request.query_params.get("wallet", ""), found)
        since = now.date() - timedelta(days=billing_view.DAYS_SHOWN)
        days = await credit_days.of_wallet(pool, owner, chosen.wallet.project_id, since)
        chart, chart_rows = billing_view.burn_down(days, chosen, now)
        return frame.page(
            request,
            "billing.html",
            visitor,
            wallets=found,
            state=chosen,
            projects=named.projects,
            manner=billing_view.manner,
            manner_explained=billing_view.manner_explained,
            ends_on=billing_view.ends_on(chosen, now),
            soon=chosen.days_left is not None and chosen.days_left <= billing_view.SOON_DAYS,
            chart=chart,
            chart_rows=chart_rows,
            today=now.date(),
            pressing=[each for each in live if billing_view.tone(each)],
            budgets=len(live),
            percent=billing_view.percent,
            tone=billing_view.tone,
            latest=latest,
            fresh=fresh,
            **WORDS,
        )

    @get("/billing/ledger")
    async def show_ledger(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]
    ) -> Response[str]:
        asked = {name: text.strip() for name, text in request.query_params.items()}
        errors: dict[str, str] = {}
        found: list[Transaction] = []
        shown = asked.get("show", "") if asked.get("show", "") in SHOWN else ""
        try:
            first = credit.day("since", asked.get("since") or None)
            last = credit.day("until", asked.get("until") or None)
            found = await books.transactions(
                pool,
                visitor.organisation_id,
                kinds=SHOWN[shown][1],
                since=midnight(first) if first else None,
                until=midnight(last + timedelta(days=1)) if last else None,
                before=_number(asked.get("before")),
                limit=PAGE + 1,
            )
        except BadRequest as error:
            errors = {error.param or "since": f"{error}."}
        named = await labels.of(pool, visitor.organisation_id)
        return frame.page(
            request,
            "ledger.html",
            visitor,
            status=400 if errors else 200,
            found=found[:PAGE],
            more=found[PAGE - 1].id if len(found) > PAGE else None,
            shown=shown,
            choices={name: text for name, (text, _) in SHOWN.items()},
            asked=asked,
            errors=errors,
            projects=named.projects,
            **WORDS,
        )

    @get("/billing/ledger/{number:int}")
    async def show_transaction(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], number: FromPath[int]
    ) -> Response[str]:
        owner = visitor.organisation_id
        booked = await _find(frame, owner, number)
        context = await _behind(frame, booked, request.query_params.get("after"))
        made_good = [
            each
            for each in [
                await _ours(frame, owner, other) for other in await books.corrected_by(pool, booked.id)
            ]
            if each is not None
        ]
        return frame.page(
            request,
            "ledger_transaction.html",
            visitor,
            booked=booked,
            made_good=made_good,
            names=await labels.of(pool, owner),
            **context,
            **WORDS,
        )

    return [show, show_ledger, show_transaction]


async def _behind(frame: Frame, booked: Transaction, after: str | None) -> dict[str, Any]:
    """What a booking was for: a page of its requests, or its minutes."""
    pool = frame.world.pool
    context: dict[str, Any] = {"requests": [], "charged": [], "minutes": [], "archived": [], "next": None}
    context["after"] = after
    if booked.kind is TransactionKind.MINUTES:
        context["minutes"] = await books.charged_minutes(pool, booked)
    elif booked.kind is TransactionKind.USAGE:
        found = await books.charged_requests(
            pool, booked, after=credit.place(after), limit=REQUESTS_SHOWN + 1
        )
        context["requests"] = found[:REQUESTS_SHOWN]
        if len(found) > REQUESTS_SHOWN:
            last = found[REQUESTS_SHOWN - 1]
            context["next"] = f"{last.ended_at.isoformat()}/{last.event_id}"
        context["charged"] = await books.charged_wallets(pool, booked)
        context["archived"] = await books.archived_days(pool, booked)
    return context


async def _find(frame: Frame, owner: int, number: int) -> Transaction:
    """The organisation's part of a booking; raises NotFound."""
    booked = await _ours(frame, owner, number)
    if booked is None:
        raise NotFound(f"there is no transaction {number} here")
    return booked


async def _ours(frame: Frame, owner: int, number: int) -> Transaction | None:
    try:
        return await books.transaction(frame.world.pool, number, owner)
    except UnknownTransaction:
        return None


def _wallet(text: str, found: list[wallets.WalletState]) -> wallets.WalletState:
    """The wallet that an address names, or the organisation's own."""
    return next((state for state in found if str(state.wallet.project_id) == text), found[0])


def _number(text: str | None) -> int:
    """Where a page of bookings begins; raises BadRequest."""
    if not text:
        return books.NUMBER_MAX
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest("before is the number of a transaction", param="before")
    return min(int(text), books.NUMBER_MAX)
