"""What endpoints used and cost, for pages: from roll-ups and charged minutes, never from events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import asyncpg
import msgspec

from penstock.endpoints import serverless
from penstock.endpoints.serverless import Endpoint
from penstock_billing import minutes, usage
from penstock_billing.minutes import EndpointMinutes
from penstock_billing.usage import NO_USAGE, Dimension, Question, Step, UsageLine, UsageTotals

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEY_DAYS = 30
"""How far back the last use of a key is looked for."""
NANO = 1_000_000_000
NO_MINUTES = EndpointMinutes(0, 0)


class Span(StrEnum):
    """How much time a page is about."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"


SPANS = ((Span.DAY, "24 hours"), (Span.WEEK, "7 days"), (Span.MONTH, "30 days"))


class Figures(msgspec.Struct, frozen=True):
    """An endpoint today and in this month, both of UTC."""

    today: UsageTotals = NO_USAGE
    month: UsageTotals = NO_USAGE
    minutes: EndpointMinutes = NO_MINUTES

    @property
    def cost_nano_usd(self) -> int:
        """What it cost in this month: requests and minutes."""
        return self.month.cost_nano_usd + self.minutes.cost_nano_usd


class Use(msgspec.Struct, frozen=True):
    """What an endpoint used in a span, as a whole and step by step."""

    since: datetime
    step: Step
    totals: UsageTotals
    minutes: EndpointMinutes
    steps: list[tuple[datetime, UsageTotals]]
    as_of: datetime

    @property
    def cost_nano_usd(self) -> int:
        """What it cost: requests and minutes."""
        return self.totals.cost_nano_usd + self.minutes.cost_nano_usd


def span(text: str) -> Span:
    """Read a span out of an address; what is none is the shortest."""
    return Span(text) if text in set(Span) else Span.DAY


def midnight(now: datetime) -> datetime:
    """The beginning of the UTC day."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def of_endpoints(
    pool: asyncpg.Pool, organisation_id: int, found: list[Endpoint], now: datetime
) -> dict[int, Figures]:
    """Figures of an organisation's endpoints by id; those that are being deleted have none."""
    live = [each for each in found if each.deleted_at is None]
    if not live:
        return {}
    today = midnight(now)
    month, until = today.replace(day=1), today + DAY
    used_month = await _by_name(pool, organisation_id, month, until)
    used_today = await _by_name(pool, organisation_id, today, until)
    # Usage knows names; what an earlier endpoint of a name used is not this one's.
    for name in await serverless.borne_before(pool, organisation_id, month):
        made_at = _minute(next(each.created_at for each in live if each.name == name))
        for used, since in ((used_month, month), (used_today, today)):
            used[name] = await _totals(pool, organisation_id, name, max(since, made_at), until)
    charged = await minutes.of_endpoints(pool, organisation_id, [each.id for each in live], month, until)
    return {
        each.id: Figures(
            used_today.get(each.name, NO_USAGE),
            used_month.get(each.name, NO_USAGE),
            charged.get(each.id, NO_MINUTES),
        )
        for each in live
    }


async def of_span(
    pool: asyncpg.Pool, organisation_id: int, endpoint: Endpoint, over: Span, now: datetime
) -> Use:
    """What one endpoint used: by hours in a day, by days in what is longer."""
    today = midnight(now)
    if over is Span.DAY:
        this_hour = today + (now - today) // HOUR * HOUR
        begins = [this_hour - back * HOUR for back in range(23, -1, -1)]
        step, until = Step.HOUR, this_hour + HOUR
    else:
        days = 7 if over is Span.WEEK else 30
        begins = [today - back * DAY for back in range(days - 1, -1, -1)]
        step, until = Step.DAY, today + DAY
    since = begins[0]
    made_at = _minute(endpoint.created_at)
    question = _question(organisation_id, endpoint.name, max(since, made_at), until, step)
    lines = {line.at: line for line in await usage.read(pool, question)}
    charged = await minutes.of_endpoints(pool, organisation_id, [endpoint.id], since, until)
    fresh = await usage.freshness(pool, organisation_id)
    return Use(
        since=since,
        step=step,
        totals=_sum(list(lines.values())),
        minutes=charged.get(endpoint.id, NO_MINUTES),
        steps=[(at, lines.get(at, NO_USAGE)) for at in begins],
        as_of=fresh.as_of,
    )


async def last_used(
    pool: asyncpg.Pool, organisation_id: int, endpoint: Endpoint, now: datetime
) -> dict[str, datetime]:
    """When the hour began in which each key called an endpoint last, within KEY_DAYS."""
    until = midnight(now) + DAY
    since = max(until - KEY_DAYS * DAY, _minute(endpoint.created_at))
    days = await _by_key(pool, _question(organisation_id, endpoint.name, since, until, Step.DAY))
    found: dict[str, datetime] = {}
    for day in sorted(set(days.values())):
        day_since = max(day, since)
        hours = await _by_key(
            pool, _question(organisation_id, endpoint.name, day_since, day + DAY, Step.HOUR)
        )
        found |= {key: hour for key, hour in hours.items() if days[key] == day}
    return found


def charts(used: Use) -> dict[str, Any]:
    """What js/charts.js draws of it."""
    form = "%H:%M" if used.step is Step.HOUR else "%d %b"
    labels = [at.strftime(form) for at, _ in used.steps]
    totals = [each for _, each in used.steps]

    def bars(unit: str, **series: list[float]) -> dict[str, Any]:
        named = [{"name": name.replace("_", " "), "values": values} for name, values in series.items()]
        return {"type": "bar", "labels": labels, "stacked": True, "unit": unit, "series": named}

    return {
        "requests": bars(
            "",
            charged=[each.requests for each in totals],
            failed_by_us=[each.failed_requests for each in totals],
        ),
        "tokens": bars(
            "tokens",
            input=[each.input_tokens - each.cached_tokens for each in totals],
            cached_input=[each.cached_tokens for each in totals],
            output=[each.output_tokens for each in totals],
        ),
        "cost": bars("usd", requests=[each.cost_nano_usd / NANO for each in totals]),
    }


def _minute(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def _question(organisation_id: int, name: str, since: datetime, until: datetime, step: Step) -> Question:
    return Question(
        organisation_id=organisation_id, since=since, until=max(since, until), step=step, endpoint=name
    )


async def _by_name(
    pool: asyncpg.Pool, organisation_id: int, since: datetime, until: datetime
) -> dict[str, UsageTotals]:
    asked = Question(
        organisation_id=organisation_id, since=since, until=until, by=frozenset({Dimension.ENDPOINT})
    )
    return {line.endpoint: line for line in await usage.read(pool, asked) if line.endpoint}


async def _by_key(pool: asyncpg.Pool, asked: Question) -> dict[str, datetime]:
    """The last step in which each key was used."""
    lines = await usage.read(pool, msgspec.structs.replace(asked, by=frozenset({Dimension.KEY})))
    # They come in the order of their time: the last one counts.
    return {line.key_id: line.at for line in lines if line.key_id is not None and line.at is not None}


async def _totals(
    pool: asyncpg.Pool, organisation_id: int, name: str, since: datetime, until: datetime
) -> UsageTotals:
    lines = await usage.read(pool, _question(organisation_id, name, since, until, Step.TOTAL))
    return lines[0] if lines else NO_USAGE


def _sum(lines: list[UsageLine]) -> UsageTotals:
    names = UsageTotals.__struct_fields__
    return UsageTotals(**{name: sum(getattr(line, name) for line in lines) for name in names})
