"""Charged minutes as people ask for them: by time and by what ran, beside the usage of requests.

A charge is minutes at one price, so a part of it costs exactly its share: it is divided wherever a window, a
day or an hour ends, and every division sums to the same.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from penstock_billing import usage
from penstock_billing.intervals import IntervalKind
from penstock_billing.minutes import SQL
from penstock_billing.usage import Question, Step


class MinuteLine(msgspec.Struct, frozen=True, kw_only=True):
    """Minutes of one endpoint, or of instances, at one price."""

    at: datetime | None
    """When its day, hour or minute begins (UTC); None for a question of no steps."""
    kind: IntervalKind
    priced_as: str
    model: str
    endpoint: str
    project_id: int
    nano_usd_per_minute: int
    minutes: int
    cost_nano_usd: int


async def read(pool: usage.Database, question: Question) -> list[MinuteLine]:
    """Answer a question for minutes, in order of time; those of no key are in no answer about one."""
    if question.key_id is not None:
        return []
    rows = await pool.fetch(
        f"{SQL['overlapping']}\n{SQL['by_step']}",
        question.organisation_id,
        question.since,
        question.until,
        Step(question.step).value,
        question.project_id,
        question.model,
        question.endpoint,
    )
    return [MinuteLine(**(dict(row) | {"kind": IntervalKind(row["kind"])})) for row in rows]
