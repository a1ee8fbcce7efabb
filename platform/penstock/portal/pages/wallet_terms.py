"""How a wallet pays, ahead or afterwards: an operator says so."""

from __future__ import annotations

from typing import Any, Literal, cast

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
from penstock.portal.pages import top_up
from penstock_base import money
from penstock_billing import wallets
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding
from penstock_billing.wallets import WalletState

PAYS = [("postpaid", "Postpaid"), ("prepaid", "Prepaid"), ("strict", "Prepaid, strict")]


class Form(msgspec.Struct):
    """The terms as they are chosen."""

    pays: Literal["postpaid", "prepaid", "strict"]
    wallet: int = 0
    owed_max_usd: str = ""


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool = frame.world.pool

    @get("/billing/terms")
    async def ask(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        top_up.admit(visitor)
        asked = request.query_params.get("wallet", "0")
        found = await wallets.states(pool, visitor.organisation_id)
        state = next((each for each in found if f"{each.wallet.project_id}" == asked), found[0])
        pays = "strict" if state.strict else state.funding.value
        owed = state.owed_max_nano_usd
        values = {
            "wallet": f"{state.wallet.project_id}",
            "pays": pays,
            "owed_max_usd": "" if owed is None else money.nano_to_usd(owed),
        }
        return await _form(frame, request, visitor, found, values, {})

    @post("/billing/terms", status_code=303)
    async def settle(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        top_up.admit(visitor)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Form)
            owed_max = _owed_max(form, values)
            named = await labels.of(pool, visitor.organisation_id)
            if form.wallet and form.wallet not in named.projects:
                raise FormError({"wallet": "choose one that is in the list"}, values)
        except FormError as error:
            found = await wallets.states(pool, visitor.organisation_id)
            return await _form(frame, request, visitor, found, error.values, error.errors, status=422)
        async with pool.acquire() as taken:
            await wallets.set_terms(
                cast("asyncpg.Connection", taken),
                Wallet(visitor.organisation_id, form.wallet),
                Funding.POSTPAID if form.pays == "postpaid" else Funding.PREPAID,
                strict=form.pays == "strict",
                owed_max_nano_usd=owed_max,
            )
        return go(f"/portal/billing{f'?wallet={form.wallet}' if form.wallet else ''}", "terms-set")

    return [ask, settle]


def _owed_max(form: Form, values: dict[str, str]) -> int | None:
    """What may be owed at most; raises FormError."""
    if not form.owed_max_usd:
        return None
    if form.pays != "postpaid":
        raise FormError({"owed_max_usd": "only what is paid afterwards is owed: leave it out"}, values)
    try:
        owed_max = money.usd_to_nano(form.owed_max_usd)
    except ValueError as error:
        raise FormError({"owed_max_usd": str(error)}, values) from None
    if owed_max > top_up.AMOUNT_MAX_NANO_USD:
        raise FormError({"owed_max_usd": "at most 1,000,000 dollars"}, values)
    return owed_max


async def _form(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    found: list[WalletState],
    values: Any,
    errors: dict[str, str],
    *,
    status: int = 200,
) -> Response[str]:
    named = await labels.of(frame.world.pool, visitor.organisation_id)
    own = {state.wallet.project_id for state in found if state.named}
    projects = [
        (f"{number}", name if number in own else f"{name} (pays from the organisation's now)")
        for number, name in named.projects.items()
    ]
    return frame.page(
        request,
        "wallet_terms.html",
        visitor,
        status=status,
        choices=[("0", f"{visitor.organisation}, the organisation's own"), *projects],
        pays=PAYS,
        values=values,
        errors=errors,
    )
