"""The audit log: who changed what, when, with each field before and after."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from penstock.access.audit import entries, words
from penstock.access.audit.entries import FIRST, Asked, Place, UnreadablePlace
from penstock.access.sessions import Visitor
from penstock.edge.api.audit import question
from penstock.edge.refusals import BadRequest
from penstock.portal.frame import Frame

PATH = "/portal/audit"
PAGE = 50
CSV_PAGE, CSV_MAX = 1_000, 100_000
FILTERS = ("who", "what", "action", "name", "since", "until")
ALL = "installation"
"""In `scope`: every organisation and the installation itself, for operators."""


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool = frame.world.pool

    @get("/audit")
    async def show_audit(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        query = _query(request)
        errors: dict[str, str] = {}
        try:
            asked = _asked(query, visitor)
        except BadRequest as error:
            errors[error.param or "form"] = str(error)
            asked = Asked(organisation_id=_scope(query, visitor))
        place = _place(request.query_params.get("after", ""))
        found = await entries.page(pool, asked, place, PAGE + 1) if not errors else []
        more = str(found[PAGE - 1].place) if len(found) > PAGE else ""
        found = found[:PAGE]
        return frame.page(
            request,
            "audit.html",
            visitor,
            block="log" if request.headers.get("hx-target") == "log" else None,
            status=422 if errors else 200,
            days=[(day, list(group)) for day, group in groupby(found, lambda entry: entry.at.date())],
            organisations=await entries.organisations(pool, found),
            names=await entries.names(pool, found),
            words=words,
            values=query,
            errors=errors,
            filtered=any(query.get(name) for name in FILTERS),
            first=place is FIRST,
            things=[("", "Everything"), *((each, each) for each in entries.THINGS)],
            actions=[("", "Anything"), *((each, each) for each in entries.ACTIONS)],
            older=f"{PATH}?{urlencode(query | {'after': more})}" if more else "",
            newest=f"{PATH}?{urlencode(query)}" if query else PATH,
            csv=f"{PATH}.csv?{urlencode(query)}" if query else f"{PATH}.csv",
        )

    @get("/audit.csv")
    async def export_audit(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Stream:
        asked = _asked(_query(request), visitor)
        headers = {
            "content-disposition": 'attachment; filename="penstock-audit.csv"',
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        return Stream(_lines(frame, asked), media_type="text/csv; charset=utf-8", headers=headers)

    return [show_audit, export_audit]


def _query(request: Request[Any, Any, Any]) -> dict[str, str]:
    known = (*FILTERS, "scope")
    return {name: text for name in known if (text := request.query_params.get(name, "").strip())}


def _scope(query: dict[str, str], visitor: Visitor) -> int | None:
    """Whose log: None, which is everybody's, only for operators."""
    return None if visitor.operator and query.get("scope") == ALL else visitor.organisation_id


def _asked(query: dict[str, str], visitor: Visitor) -> Asked:
    return question(_scope(query, visitor), **{name: query.get(name, "") for name in FILTERS})


def _place(text: str) -> Place:
    try:
        return entries.read_place(text)
    except UnreadablePlace as error:
        raise BadRequest(str(error), param="after") from None


async def _lines(frame: Frame, asked: Asked) -> AsyncIterator[bytes]:
    """The log as CSV, piece by piece; beyond CSV_MAX entries a narrower time is to be asked for."""
    yield _csv([list(words.COLUMNS)])
    place, count = FIRST, 0
    while count < CSV_MAX:
        found = await entries.page(frame.world.pool, asked, place, CSV_PAGE)
        if not found:
            return
        names = await entries.organisations(frame.world.pool, found)
        yield _csv([words.row(entry, names) for entry in found])
        place, count = found[-1].place, count + len(found)


def _csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
