"""Single requests: searched, followed as they end, and each explained up to its cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access import labels
from penstock.access.labels import Labels
from penstock.access.sessions import Visitor
from penstock.edge.api import request_lookup, request_questions, request_stages
from penstock.edge.api.request_lookup import Found, Missing
from penstock.edge.api.request_questions import Asked
from penstock.edge.refusals import BadRequest
from penstock.endpoints import serverless
from penstock.portal import request_rows
from penstock.portal.frame import Frame, go
from penstock.portal.rendering import HEADERS
from penstock_billing import requests
from penstock_billing.errors import SearchTookTooLong
from penstock_billing.record import Outcome
from penstock_billing.requests import RecordedRequest, Wanted

HERE = "/portal/requests"
FILTERS = (
    "id",
    "model",
    "key",
    "project",
    "endpoint",
    "outcome",
    "status",
    "longer_than",
    "within",
    "since",
    "until",
)
PAGE = 50
WITHIN_DEFAULT = "24h"
BETWEEN = "between"
"""The choice of a time that two fields tell."""
BY_MODEL_NAME = "-"
"""In this page's address: what called no endpoint. No endpoint can be named so."""
LATE = timedelta(seconds=5)
"""So much later than others that ended with it a record may arrive: another gateway ships it."""
AROUND = timedelta(days=1)
"""How far from a request its neighbours are looked for."""
TRIES_MAX = 8
"""A page of a request that may still come looks so often, once a second."""
OUTCOMES = (
    ("", "Any"),
    ("done", "Done"),
    (",".join(request_rows.OURS), "Failed (ours, free)"),
    *((each.value, request_rows.in_words(each).capitalize()) for each in Outcome if each is not Outcome.DONE),
)
TIMES = (
    ("", "Last 24 hours"),
    ("15m", "Last 15 minutes"),
    ("1h", "Last hour"),
    ("6h", "Last 6 hours"),
    ("7d", "Last 7 days"),
    ("31d", "Last 31 days"),
)


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool = frame.world.pool

    @get("/requests")
    async def search(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        given = _given(request.query_params)
        if newer := request.query_params.get("newer"):
            return await _newer(frame, request, visitor, given, newer)
        errors: dict[str, str] = {}
        found: list[RecordedRequest] = []
        wanted, stopped, narrower, filed = None, "", "", []
        try:
            wanted = _wanted(visitor.organisation_id, given, request.query_params.get("after"))
            found = await requests.latest(pool, wanted)
            filed = await requests.filed_days(pool, wanted.since, wanted.until)
        except SearchTookTooLong:
            assert wanted is not None
            stopped, narrower = request_questions.too_long(wanted), request_questions.narrower(wanted)
        except BadRequest as error:
            errors = {error.param or "form": _beside(error)}
        htmx = "hx-request" in request.headers
        if given.get("id") and not htmx and len(found) == 1:
            return go(f"{HERE}/{quote(found[0].request_id, safe='')}")
        named = await labels.of(pool, visitor.organisation_id)
        endpoints = await serverless.listed(pool, visitor.organisation_id)
        first_page = "after" not in request.query_params
        return frame.page(
            request,
            "requests.html",
            visitor,
            block="search" if htmx else None,
            status=422 if errors else 200,
            values={"within": BETWEEN if {"since", "until"} & given.keys() else ""} | given,
            errors=errors,
            rows=[request_rows.row(one, named) for one in found],
            wanted=wanted,
            stopped=stopped,
            filed=filed,
            choices=_choices(frame, given, named, [each.name for each in endpoints]),
            narrowed=any(name not in {"within", "since", "until"} for name in given),
            more=sum(name in given for name in ("project", "endpoint", "status", "since", "until")),
            filters=_query(given),
            older=_query(given | {"after": after})
            if (after := request_questions.next_after(found, PAGE))
            else "",
            first_page=first_page,
            live=first_page and not errors and not stopped and "until" not in given,
            now_place=_place_now(),
            narrower=_query(_without_time(given) | {"within": narrower}),
        )

    @get("/requests/{request_id:str}")
    async def show(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], request_id: FromPath[str]
    ) -> Response[Any]:
        found = await request_lookup.look_up(pool, visitor.organisation_id, request_id, datetime.now(UTC))
        given = _given(request.query_params)
        if isinstance(found, Found):
            if "hx-request" in request.headers:
                return Response(b"", status_code=200, headers=HEADERS | {"hx-refresh": "true"})
            return await _explained(frame, request, visitor, found, given)
        tries = _tries(request.query_params.get("try", ""))
        again = found.why in {Missing.COMING, Missing.UNKNOWN} and tries < TRIES_MAX
        return frame.page(
            request,
            "request_missing.html",
            visitor,
            block="missing" if "hx-request" in request.headers else None,
            status=404,
            name=request_id,
            why=found.why.value,
            text=found.text,
            again=f"{HERE}/{quote(request_id, safe='')}?{_query(given | {'try': str(tries + 1)})}"
            if again
            else "",
            filters=_query(given),
        )

    return [search, show]


async def _newer(
    frame: Frame, request: Request[Any, Any, Any], visitor: Visitor, given: dict[str, str], newer: str
) -> Response[Any]:
    """Rows of what ended since a place; some of them may have been shown already."""
    wanted = _wanted(visitor.organisation_id, given, None)
    try:
        since = datetime.fromisoformat(newer.partition("/")[0]) - LATE
    except (ValueError, OverflowError):
        since = wanted.since
    wanted = msgspec.structs.replace(wanted, since=max(wanted.since, since) if since.tzinfo else wanted.since)
    found = await request_questions.answer(frame.world.pool, wanted)
    named = await labels.of(frame.world.pool, visitor.organisation_id) if found else Labels({}, {})
    rows = [request_rows.row(one, named) for one in found]
    return frame.page(request, "requests.html", visitor, block="rows", rows=rows, filters=_query(given))


async def _explained(
    frame: Frame, request: Request[Any, Any, Any], visitor: Visitor, found: Found, given: dict[str, str]
) -> Response[Any]:
    pool, one = frame.world.pool, found.request
    older, newer = await _neighbours(frame, visitor, one, given)
    named = await labels.of(pool, visitor.organisation_id)
    price = found.price
    raw = msgspec.json.format(msgspec.json.encode(found.explained()), indent=2).decode()
    return frame.page(
        request,
        "request.html",
        visitor,
        one=one,
        row=request_rows.row(one, named),
        project=named.projects.get(one.project_id) or str(one.project_id),
        meaning=request_stages.MEANINGS[one.outcome],
        billable=one.outcome.billable,
        bars=request_rows.bars(one),
        policy_prefers=request_stages.POLICIES.get(one.policy, ""),
        speed=request_rows.tokens_per_s(one),
        price=price,
        charges=[
            (request_rows.unit_label(charge.unit), charge)
            for charge in (request_stages.charges(one, price) if price else [])
        ],
        total=request_stages.total(one, price) if price else None,
        refunds=found.refunds,
        raw=raw,
        url=f"{frame.world.settings.public_url}/api/v1/requests/{quote(one.request_id, safe='')}",
        offered=frame.world.shelf.get(one.model) is not None,
        older=older,
        newer=newer,
        filters=_query(given),
    )


async def _neighbours(
    frame: Frame, visitor: Visitor, one: RecordedRequest, given: dict[str, str]
) -> tuple[RecordedRequest | None, RecordedRequest | None]:
    """What stands before and after a request in the list that it was found in."""
    kept = {name: value for name, value in _without_time(given).items() if name != "id"}
    try:
        wanted = msgspec.structs.replace(
            _wanted(visitor.organisation_id, kept, None),
            since=one.ended_at - AROUND,
            until=one.ended_at + AROUND,
        )
        return await requests.neighbours(frame.world.pool, wanted, one)
    except (BadRequest, SearchTookTooLong):
        return None, None


def _given(query: Mapping[str, str]) -> dict[str, str]:
    """The filters of an address; empty ones are none."""
    given = {name: value for name in FILTERS if (value := query.get(name, "").strip())}
    # As programs ask for what called no endpoint; this page's form sends every field, empty for any.
    if query.get("endpoint") == "" and "outcome" not in query:
        given["endpoint"] = BY_MODEL_NAME
    for name in ("since", "until"):
        # As browsers send a moment: in no zone, and on this page all times are UTC.
        if len(given.get(name, "")) == len("2026-11-21T10:00") and "T" in given[name]:
            given[name] += "Z"
    if {"since", "until"} & given.keys() or given.get("within") == BETWEEN:
        given.pop("within", None)
    return given


def _wanted(organisation_id: int, given: Mapping[str, str], after: str | None) -> Wanted:
    """What is asked for; raises BadRequest."""
    asked = dict(given)
    if asked.get("endpoint") == BY_MODEL_NAME:
        asked["endpoint"] = ""
    if not {"since", "until", "id"} & asked.keys():
        asked.setdefault("within", WITHIN_DEFAULT)
    return request_questions.read(
        organisation_id, Asked(**asked, after=after or None, limit=PAGE), datetime.now(UTC)
    )


def _choices(
    frame: Frame, given: Mapping[str, str], named: Labels, endpoints: list[str]
) -> dict[str, list[tuple[str, str]]]:
    """What each filter offers; what the address has is always among it."""
    choices = {
        "model": [("", model) for model in sorted(frame.world.directory.models())],
        "key": [("", "Any"), *named.keys.items()],
        "project": [("", "Any"), *((str(number), name) for number, name in named.projects.items())],
        "endpoint": [
            ("", "Any"),
            (BY_MODEL_NAME, "None: called by model name"),
            *((n, n) for n in endpoints),
        ],
        "outcome": list(OUTCOMES),
        "within": [*TIMES, *([(BETWEEN, "From … until …")] if {"since", "until"} & given.keys() else [])],
    }
    for name, offered in choices.items():
        value = given.get(name, "")
        if name != "model" and value and value not in {each for each, _ in offered}:
            offered.append((value, value))
    return choices


def _beside(error: BadRequest) -> str:
    """What is wrong, without the name of the field that it stands beside."""
    named = f"{error.param} is "
    text = str(error)
    if text.startswith(named):
        text = text.removeprefix(named).partition(": ")[2] or text
    return f"{text[:1].upper()}{text[1:]}."


def _without_time(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in given.items() if name not in {"within", "since", "until"}}


def _query(values: Mapping[str, str]) -> str:
    return urlencode(values)


def _place_now() -> str:
    """Where what ends from now on stands."""
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{now}Z/{'0' * 32}"


def _tries(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
