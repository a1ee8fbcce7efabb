"""What an organisation used, read from roll-ups; single requests are in `requests.py`.

Every query names the organisation: there is none that looks across tenants.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.errors import UsageQuestionRefused

SQL = queries.load("penstock_billing", "usage.sql")

LINES_MAX = 10_000
"""In one answer."""

Database = asyncpg.Connection | asyncpg.Pool


class Step(enum.StrEnum):
    """How time is divided in an answer."""

    TOTAL = "total"
    DAY = "day"
    HOUR = "hour"
    MINUTE = "minute"


class Dimension(enum.StrEnum):
    """What usage can be told apart by, beside time."""

    MODEL = "model"
    PROJECT = "project"
    KEY = "key"
    ENDPOINT = "endpoint"
    PRICE_VERSION = "price_version"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which usage, and how it is divided."""

    organisation_id: int
    since: datetime
    """The first minute that counts."""
    until: datetime
    """The first minute that does not count any more."""
    step: Step = Step.TOTAL
    by: frozenset[Dimension] = frozenset()
    project_id: int | None = None
    """Only this project's; likewise the next three."""
    key_id: str | None = None
    model: str | None = None
    endpoint: str | None = None
    """Empty: only what called a model by its name."""
    only: tuple[str, ...] | None = None
    """With one dimension: the names told apart by it; what bears another is one line, named None."""

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            moment: datetime = getattr(self, name)
            if moment.tzinfo is None or moment.second or moment.microsecond:
                raise UsageQuestionRefused(
                    f"{name} is {moment}: usage is kept by whole minutes of a named zone"
                )
        if self.since > self.until:
            raise UsageQuestionRefused(f"since ({self.since}) is after until ({self.until})")


class UsageTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over requests. Units and cost are those that are charged; our own failures are only counted."""

    requests: int
    failed_requests: int
    """Requests that we could not finish; free."""
    input_tokens: int
    cached_tokens: int
    """Part of the input tokens."""
    output_tokens: int
    reasoning_tokens: int
    """Part of the output tokens."""
    images: int = 0
    audio_ms: int = 0
    documents: int = 0
    cost_nano_usd: int


class UsageLine(UsageTotals, frozen=True, kw_only=True):
    """One line of an answer; what was not asked to be told apart is None."""

    at: datetime | None
    """When its day, hour or minute begins (UTC)."""
    model: str | None
    project_id: int | None
    key_id: str | None
    endpoint: str | None
    price_version: int | None = None


class Freshness(msgspec.Struct, frozen=True):
    """How far an answer reaches."""

    as_of: datetime
    """When it was read, by the database's clock; requests that ended a second before are in it."""
    latest_minute: datetime | None
    """The latest minute in which the organisation used anything; None when it never did."""


NO_USAGE = UsageTotals(
    requests=0,
    failed_requests=0,
    input_tokens=0,
    cached_tokens=0,
    output_tokens=0,
    reasoning_tokens=0,
    cost_nano_usd=0,
)


async def read(pool: Database, question: Question) -> list[UsageLine]:
    """Answer a question from day, hour and minute sums, exact for any window of whole minutes.

    Lines come in the order of their time, then model, project, key, endpoint and price version; where nothing
    was used there is none. Raises UsageQuestionRefused beyond LINES_MAX lines.
    """
    rows = await _fetch(pool, question, LINES_MAX + 1)
    if len(rows) > LINES_MAX:
        raise UsageQuestionRefused(
            f"the answer has more than {LINES_MAX:,} lines: ask for less time, longer steps or fewer parts"
        )
    return [UsageLine(**row) for row in rows]


async def read_all(pool: Database, question: Question) -> AsyncIterator[list[UsageLine]]:
    """Answer a question of any size, part by part, in the same order; no connection is held in between.

    Each part is exact as of when it is read.
    """
    for part in cut(question):
        yield [UsageLine(**row) for row in await _fetch(pool, part, None)]


def cut(question: Question) -> Iterator[Question]:
    """Cut a question at the ends of UTC days, one of minutes at those of hours: each part has few lines.

    A total stays whole.
    """
    if question.step is Step.TOTAL:
        yield question
        return
    since = question.since.astimezone(UTC)
    while since < question.until:
        if question.step is Step.MINUTE:
            end = since.replace(minute=0) + timedelta(hours=1)
        else:
            end = since.replace(hour=0, minute=0) + timedelta(days=1)
        until = min(end, question.until)
        yield msgspec.structs.replace(question, since=since, until=until)
        since = until


async def _fetch(pool: Database, question: Question, lines_max: int | None) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await pool.fetch(
        SQL["between"],
        question.organisation_id,
        question.since,
        question.until,
        question.step.value,
        [each.value for each in question.by],
        question.project_id,
        question.key_id,
        question.model,
        question.endpoint,
        lines_max,
        None if question.only is None else list(question.only),
    )
    return found


def parts(question: Question, line: UsageLine) -> dict[str, Any]:
    """Name what a line is the usage of: its day, hour or minute, and whatever else was to be told apart."""
    named: dict[str, Any] = {}
    if line.at is not None:
        at = line.at.astimezone(UTC)
        named[question.step.value] = at.date() if question.step is Step.DAY else at
    told_apart = {
        Dimension.MODEL: ("model", line.model),
        Dimension.PROJECT: ("project_id", line.project_id),
        Dimension.KEY: ("key_id", line.key_id),
        Dimension.ENDPOINT: ("endpoint", line.endpoint),
        Dimension.PRICE_VERSION: ("price_version", line.price_version),
    }
    return named | dict(told_apart[each] for each in Dimension if each in question.by)


def sums(line: UsageTotals) -> dict[str, int]:
    """The numbers of a line by their names."""
    return {name: getattr(line, name) for name in UsageTotals.__struct_fields__}


async def freshness(pool: Database, organisation_id: int) -> Freshness:
    """Tell how far answers about an organisation reach."""
    row = await pool.fetchrow(SQL["freshness"], organisation_id)
    assert row is not None
    return Freshness(row["as_of"], row["latest_minute"])


async def totals(
    pool: Database,
    organisation_id: int,
    since: datetime,
    until: datetime,
    project_id: int | None = None,
) -> UsageTotals:
    """Sum usage for the minutes that begin in [since, until)."""
    question = Question(organisation_id=organisation_id, since=since, until=until, project_id=project_id)
    lines = await read(pool, question)
    return UsageTotals(**sums(lines[0])) if lines else NO_USAGE
