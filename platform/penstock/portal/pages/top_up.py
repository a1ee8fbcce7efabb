"""Adding credit by hand: an operator books what somebody paid, once however often the form is sent."""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access import labels
from penstock.access.sessions import Visitor
from penstock.portal import forms
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock.portal.guard import Forbidden
from penstock.portal.rendering import require_operator
from penstock_base import ids, money
from penstock_billing import wallets
from penstock_billing.errors import LedgerRefused
from penstock_billing.leases import Wallet
from penstock_billing.wishes import Wish

AMOUNT_MAX_NANO_USD = 10**15
"""A million dollars: beyond it somebody mistook the unit; `penstock credit top-up` takes more."""
NOTE_MAX = 500


class Form(msgspec.Struct):
    """A top-up as it is typed."""

    amount_usd: str
    reference: str
    wallet: int = 0
    note: str = ""


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool = frame.world.pool

    @get("/billing/top-up")
    async def ask(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        admit(visitor)
        values = {"reference": f"top-up:{ids.random_text(12)}", "wallet": "0"}
        return await _form(frame, request, visitor, values, {})

    @post("/billing/top-up", status_code=303)
    async def top_up(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        admit(visitor)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Form)
            wish = _wish(form, visitor, values)
            named = await labels.of(pool, visitor.organisation_id)
            if form.wallet and form.wallet not in named.projects:
                raise FormError({"wallet": "choose one that is in the list"}, values)
            async with pool.acquire() as connection:
                booked = await wallets.top_up(
                    cast("asyncpg.Connection", connection), wish, Wallet(visitor.organisation_id, form.wallet)
                )
        except FormError as error:
            return await _form(frame, request, visitor, error.values, error.errors, status=422)
        except LedgerRefused as error:
            return await _form(frame, request, visitor, values, {"reference": f"{error}."}, status=422)
        return go(
            f"/portal/billing/ledger/{booked.id}", "topped-up-before" if booked.repeated else "topped-up"
        )

    return [ask, top_up]


def admit(visitor: Visitor) -> None:
    """Let an operator in who looks at an organisation; raises what makes a page of a refusal."""
    require_operator(visitor)
    if not visitor.organisation_id:
        raise Forbidden("Choose the organisation whose credit it is first.")


def _wish(form: Form, visitor: Visitor, values: Any) -> Wish:
    """What is to be booked; raises FormError."""
    try:
        amount = money.usd_to_nano(form.amount_usd)
    except ValueError as error:
        raise FormError({"amount_usd": str(error)}, values) from None
    if not 0 < amount <= AMOUNT_MAX_NANO_USD:
        raise FormError({"amount_usd": "write more than 0 and at most 1,000,000 dollars"}, values)
    if len(form.note) > NOTE_MAX or not form.note.isprintable():
        raise FormError({"note": f"at most {NOTE_MAX} characters in one line"}, values)
    if not form.reference.isprintable():
        raise FormError({"reference": "no control characters"}, values)
    return Wish(ref=form.reference, amount_nano_usd=amount, note=form.note, actor=visitor.email)


async def _form(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    values: Any,
    errors: dict[str, str],
    *,
    status: int = 200,
) -> Response[str]:
    named = await labels.of(frame.world.pool, visitor.organisation_id)
    found = await wallets.states(frame.world.pool, visitor.organisation_id)
    own = [state for state in found if state.named and state.wallet.project_id]
    choices = [("0", f"{visitor.organisation}, the organisation's own")]
    choices += [
        (f"{state.wallet.project_id}", named.projects.get(state.wallet.project_id, "a project"))
        for state in own
    ]
    return frame.page(
        request,
        "top_up.html",
        visitor,
        status=status,
        choices=choices,
        state=found[0],
        values=values,
        errors=errors,
    )
