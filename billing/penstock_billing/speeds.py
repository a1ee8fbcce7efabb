"""How fast models were, as callers met them: waiting, starts and retries included.

Read from counts on a scale whose steps are 9 % wide (`billing.speed_day`), written in the transaction that
adds the events: a quantile is off by at most 4.5 %, and costs the same to read however many requests there
were. Measured over all tenants, which share the engines; nothing tells whose requests they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from penstock_base import queries

SQL = queries.load("penstock_billing", "speeds.sql")

STEPS_PER_DOUBLING = 8
DAYS = 7
"""Today and the days before it that speed is told of."""
KEEP = timedelta(days=40)
"""How long the counts stay."""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; None where nothing was."""

    requests: int = 0
    """That were measured: streamed answers, or answers without tokens."""
    first_token_p50_us: int | None = None
    first_token_p90_us: int | None = None
    tokens_per_s_p50: float | None = None
    tokens_per_s_p10: float | None = None
    """Nine in ten answers came faster."""
    answer_p50_us: int | None = None
    """To the whole answer, of models that make no tokens."""
    answer_p90_us: int | None = None


class SpeedOfDay(msgspec.Struct, frozen=True):
    """What was measured on one UTC day."""

    day: date
    speed: Speed


NOTHING = Speed()


class SpeedBook:
    """The last days' speed of every model in memory, for lists of models."""

    def __init__(self) -> None:
        self._speeds: dict[str, Speed] = {}

    async def load(self, pool: asyncpg.Pool | asyncpg.Connection, today: date | None = None) -> None:
        """Read it again; until it succeeds, the book keeps what it had."""
        self._speeds = await lately(pool, None, today)

    def of(self, model: str) -> Speed:
        """A model's speed."""
        return self._speeds.get(model, NOTHING)


async def lately(
    pool: asyncpg.Pool | asyncpg.Connection, models: Sequence[str] | None, today: date | None = None
) -> dict[str, Speed]:
    """The last days' speed of these models, or of all; of those that nobody asked there is none."""
    since = _today(today) - timedelta(days=DAYS - 1)
    if models is None:
        return _by_key(await pool.fetch(f"{SQL['lately']}\n{SQL['quantiles']}", since), "model")
    query = f"{SQL['lately_of']}\n{SQL['quantiles']}"
    return _by_key(await pool.fetch(query, since, list(models)), "model")


async def by_day(
    pool: asyncpg.Pool | asyncpg.Connection, models: Sequence[str], today: date | None = None
) -> dict[str, list[SpeedOfDay]]:
    """The speed of models on each of the last days, the oldest first; a day without requests has none."""
    until = _today(today) + timedelta(days=1)
    days = [until - timedelta(days=back) for back in range(DAYS, 0, -1)]
    found = _by_key(await pool.fetch(SQL["by_day"], list(models), days[0], until), "model", "day")
    return {model: [SpeedOfDay(day, found.get((model, day), NOTHING)) for day in days] for model in models}


async def tidy(connection: asyncpg.Connection, today: date | None = None) -> None:
    """Drop the counts that are too old to be asked for, and put those of past days together."""
    await connection.execute(SQL["forget"], _today(today) - KEEP)
    await connection.execute(SQL["merge"], _today(today))


def _today(today: date | None) -> date:
    return today or datetime.now(UTC).date()


def value_of(bucket: int) -> float:
    """The middle of a step of the scale."""
    return float(2 ** ((bucket + 0.5) / STEPS_PER_DOUBLING))


def _by_key(rows: list[asyncpg.Record], *key: str) -> dict[Any, Speed]:
    """Each key's measures put together."""
    told: dict[Any, dict[str, asyncpg.Record]] = {}
    for row in rows:
        name = row[key[0]] if len(key) == 1 else tuple(row[part] for part in key)
        told.setdefault(name, {})[row["measure"]] = row
    return {name: _speed(measures) for name, measures in told.items()}


def _speed(measures: dict[str, asyncpg.Record]) -> Speed:
    def us(measure: str, quantile: str) -> int | None:
        return round(value_of(measures[measure][quantile])) if measure in measures else None

    def rate(quantile: str) -> float | None:
        return value_of(measures["rate"][quantile]) / 1000 if "rate" in measures else None

    return Speed(
        requests=sum(row["requests"] for measure, row in measures.items() if measure != "rate"),
        first_token_p50_us=us("first_token", "p50"),
        first_token_p90_us=us("first_token", "p90"),
        tokens_per_s_p50=rate("p50"),
        tokens_per_s_p10=rate("p10"),
        answer_p50_us=us("answer", "p50"),
        answer_p90_us=us("answer", "p90"),
    )
