"""What was used and what it cost: today, this month, any time before; divided, drilled into, exported."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream
from msgspec.structs import replace

from penstock.access import labels
from penstock.access.labels import Labels
from penstock.access.sessions import Visitor
from penstock.edge.api.usage_questions import midnight
from penstock.edge.refusals import BadRequest
from penstock.endpoints import serverless
from penstock.portal import downloads, usage_files, usage_question, usage_view
from penstock.portal.frame import Frame
from penstock.portal.usage_question import ANY, REQUESTS_DAYS_MAX, SPANS, Asked, By, Measure
from penstock.portal.usage_view import OTHERS, PARTS_MAX, ROWS_MAX, SPOKEN, Names, Sums
from penstock_billing import forecast, minute_usage, usage
from penstock_billing.errors import UsageQuestionRefused
from penstock_billing.usage import Step, UsageLine

STEPS = {Step.DAY: "day", Step.HOUR: "hour", Step.MINUTE: "minute"}
KNOWN_DAYS = timedelta(days=forecast.DAYS_BACK)


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world = frame.world

    @get("/usage")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        now = datetime.now(UTC)
        status, errors = 200, {}
        try:
            asked = usage_question.read(request.query_params, now)
        except BadRequest as error:
            status, errors = 400, {error.param or "since": f"{error}."}
            asked = usage_question.read({}, now)
        context = await _read(frame, visitor.organisation_id, asked, now)
        values = {**_values(asked), **({name: request.query_params.get(name, "") for name in errors})}
        return frame.page(
            request, "usage.html", visitor, status=status, errors=errors, values=values, **context
        )

    @get("/usage/shown.csv")
    async def shown_file(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Stream:
        asked = usage_question.read(request.query_params, datetime.now(UTC))
        projects = (await labels.of(world.pool, visitor.organisation_id)).projects
        parts = usage_files.shown(world.pool, visitor.organisation_id, asked, projects, world.prices.version)
        return downloads.file(f"usage-by-{asked.by.value}-{_days(asked)}.csv", parts)

    @get("/usage/lines.csv")
    async def lines_file(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Stream:
        asked = usage_question.read(request.query_params, datetime.now(UTC))
        projects = (await labels.of(world.pool, visitor.organisation_id)).projects
        parts = usage_files.all_lines(world.pool, visitor.organisation_id, asked, projects)
        return downloads.file(f"usage-lines-{_days(asked)}.csv", parts)

    return [show, shown_file, lines_file]


async def _read(frame: Frame, organisation_id: int, asked: Asked, now: datetime) -> dict[str, Any]:
    """All that the page says."""
    pool, prices = frame.world.pool, frame.world.prices
    today = now.date()
    month = today.replace(day=1)
    lately = asked.question(
        organisation_id,
        step=Step.DAY,
        since=midnight(min(month, today - KNOWN_DAYS)),
        until=midnight(today + timedelta(days=1)),
    )
    whole = asked.question(organisation_id, by=frozenset({asked.by.dimension}))
    divided = replace(whole, step=asked.step)
    lines, minutes, by_day, minutes_by_day, fresh, named = await asyncio.gather(
        # Units have few lines by time, so those are their totals too.
        _totals(frame, divided if asked.by is By.UNIT else whole),
        minute_usage.read(pool, divided),
        usage.read(pool, lately),
        minute_usage.read(pool, lately),
        usage.freshness(pool, organisation_id),
        labels.of(pool, organisation_id),
    )
    key_ids = {line.key_id for line in lines if line.key_id} - named.keys.keys()
    more = await labels.keys(pool, organisation_id, key_ids) if key_ids else {}
    names = Names(named.projects, {**named.keys, **more})
    rows = usage_view.rows(asked, lines, minutes, names, prices.version)
    series = usage_view.told_apart(asked, rows)
    only = tuple(part for part in series if part not in SPOKEN)
    steps = lines if asked.by is By.UNIT else await usage.read(pool, replace(divided, only=only))
    rest = asked.by is not By.UNIT and sum(bool(row.sums.measured(asked.measure)) for row in rows) > PARTS_MAX
    series += [OTHERS] if rest else []
    bars = usage_view.bars(asked, steps, minutes, series, now, prices.version)
    days = usage_view.cost_by_day(by_day, minutes_by_day)
    return {
        "asked": asked,
        "rows": rows[:ROWS_MAX],
        "more_rows": max(0, len(rows) - ROWS_MAX),
        "whole": usage_view.total([*lines, *minutes]),
        "series": [usage_view.label(asked.by, part, names) for part in series],
        "bars": bars,
        "chart": usage_view.chart(asked, bars, series, names),
        "today": days.get(midnight(today), Sums()),
        "month": usage_view.total(sums for at, sums in days.items() if at >= midnight(month)),
        "month_name": f"{month:%B}",
        "forecast": forecast.of_month({at.date(): sums.cost_nano_usd for at, sums in days.items()}, now),
        "about": usage_view.dollars_about,
        "fresh": fresh,
        "spans": SPANS,
        "steps": STEPS,
        "bys": By,
        "measures": Measure,
        "any": ANY,
        "requests_href": asked.requests()
        if asked.until - asked.since <= timedelta(days=REQUESTS_DAYS_MAX)
        else "",
        "used_ever": fresh.latest_minute is not None or bool(days),
        "choices": await _choices(frame, organisation_id, named, asked, names),
    }


async def _totals(frame: Frame, question: usage.Question) -> list[UsageLine]:
    """A line for each part; raises BadRequest where they are beyond all bounds."""
    try:
        return await usage.read(frame.world.pool, question)
    except UsageQuestionRefused as error:
        raise BadRequest(str(error), param="by") from error


async def _choices(
    frame: Frame, organisation_id: int, named: Labels, asked: Asked, names: Names
) -> dict[str, list[tuple[str, str]]]:
    """What the filters offer; what is chosen is among it, whether it still exists or not."""
    endpoints = await serverless.listed(frame.world.pool, organisation_id)
    offered = {
        "model": [("", "All models"), *((card.id, card.id) for card in frame.world.shelf.cards)],
        "endpoint": [
            (ANY, "All endpoints"),
            ("", "Models by name, no endpoint"),
            *((each.name, each.name) for each in endpoints),
        ],
        "project": [("", "All projects"), *((str(number), name) for number, name in named.projects.items())],
        "key": [("", "All keys"), *((key_id, name) for key_id, name in named.keys.items())],
    }
    for name, choices in offered.items():
        chosen = asked.filters.get(name)
        if chosen is not None and all(value != chosen for value, _ in choices):
            choices.append((chosen, usage_view.label(By(name), chosen, names)))
    return offered


def _values(asked: Asked) -> dict[str, str]:
    """What the form has typed into it."""
    return {
        "endpoint": ANY,
        **asked.filters,
        "since": usage_question.written(asked.since),
        "until": usage_question.written(asked.until, last=True),
        "step": asked.step.value,
        "by": asked.by.value,
        "measure": asked.measure.value,
    }


def _days(asked: Asked) -> str:
    last = asked.until.astimezone(UTC) - timedelta(minutes=1)
    return f"{asked.since.astimezone(UTC):%Y-%m-%d}-{last:%Y-%m-%d}"
