"""How long an endpoint's requests took: quantiles over a window, from a bounded number of them.

A window is cut into equal parts, and of each part the latest requests are read, at most SAMPLE_MAX. A part
that had more is represented by those: each of them then counts for as many as it stands for, so that a busy
hour weighs what it should. Where no part had more, every request was read and the quantiles are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing import usage
from penstock_billing.usage import Question, Step

SQL = queries.load("penstock_billing", "endpoint_requests.sql")

SAMPLE_MAX = 200
"""Requests that are read of each part of a window."""
HOUR = timedelta(hours=1)


class Window(msgspec.Struct, frozen=True):
    """Equal parts of time up to now, each whole hours of UTC; the last one is not over."""

    since: datetime
    part: timedelta
    parts: int

    @property
    def begins(self) -> list[datetime]:
        """When each part begins."""
        return [self.since + index * self.part for index in range(self.parts)]

    @property
    def until(self) -> datetime:
        """When the last part is over."""
        return self.since + self.parts * self.part


def window(now: datetime, part: timedelta, parts: int) -> Window:
    """The parts that end with the one that `now` is in; `part` is a divisor of a day in whole hours."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    current = midnight + (now - midnight) // part * part
    return Window(current - (parts - 1) * part, part, parts)


class Quantiles(msgspec.Struct, frozen=True):
    """What half, nine in ten and ninety-nine in a hundred requests did not take longer than; microseconds."""

    p50_us: int
    p90_us: int
    p99_us: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """How long requests took; None where there was none."""

    requests: int
    """Answered ones."""
    read: int
    """Those of them that were looked at."""
    first_token: Quantiles | None
    """From arrival to the first token, of streamed answers."""
    whole: Quantiles | None
    """From arrival to the end, of all answers."""


class Latency(msgspec.Struct, frozen=True):
    """An endpoint's window as a whole, and its parts in order."""

    window: Window
    whole: Taken
    parts: list[Taken]


class Sample(msgspec.Struct, frozen=True):
    """One request, and how many it stands for."""

    weight: float
    streamed: bool
    first_token_us: int
    duration_us: int


async def of_endpoint(
    pool: asyncpg.Pool, organisation_id: int, endpoint: str, over: Window, made_at: datetime
) -> Latency:
    """How long the answered requests of an endpoint took; before `made_at` its name was another one's."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(SQL["in_order"])
        rows = await connection.fetch(
            SQL["sampled"], organisation_id, endpoint, over.since, over.part, over.parts, SAMPLE_MAX, made_at
        )
    sampled: dict[datetime, list[asyncpg.Record]] = {begins: [] for begins in over.begins}
    for row in rows:
        sampled[row["begins"]].append(row)
    counts: dict[datetime, int] = {}
    if any(len(some) >= SAMPLE_MAX for some in sampled.values()):
        counts = await _counts(pool, organisation_id, endpoint, over)
    weighed: list[list[Sample]] = []
    for begins, some in sampled.items():
        # Roll-ups count what is charged: with it are those whose caller left; few, and only a weight.
        stands_for = max(1.0, counts.get(begins, 0) / len(some)) if len(some) >= SAMPLE_MAX else 1.0
        weighed.append(
            [Sample(stands_for, row["streamed"], row["first_token_us"], row["duration_us"]) for row in some]
        )
    everything = [sample for some in weighed for sample in some]
    return Latency(over, taken(everything), [taken(some) for some in weighed])


def taken(samples: Sequence[Sample]) -> Taken:
    """Sum up how long requests took."""
    firsts = [(s.first_token_us, s.weight) for s in samples if s.streamed and s.first_token_us > 0]
    return Taken(
        requests=round(sum(sample.weight for sample in samples)),
        read=len(samples),
        first_token=_quantiles(firsts),
        whole=_quantiles([(sample.duration_us, sample.weight) for sample in samples]),
    )


def _quantiles(values: list[tuple[int, float]]) -> Quantiles | None:
    if not values:
        return None
    ordered = sorted(values)
    reached = list(itertools.accumulate(weight for _, weight in ordered))

    def at(share: float) -> int:
        # A hair less: sums of weights are floats, and what is reached exactly is reached.
        wanted = share * reached[-1] * (1 - 1e-9)
        return next(value for (value, _), sum_of in zip(ordered, reached, strict=True) if sum_of >= wanted)

    return Quantiles(at(0.5), at(0.9), at(0.99))


async def _counts(
    pool: asyncpg.Pool, organisation_id: int, endpoint: str, over: Window
) -> dict[datetime, int]:
    """How many requests each part had, from roll-ups."""
    question = Question(
        organisation_id=organisation_id,
        since=over.since,
        until=over.until,
        step=Step.HOUR,
        endpoint=endpoint,
    )
    counts: dict[datetime, int] = {}
    for line in await usage.read(pool, question):
        assert line.at is not None
        begins = over.since + (line.at - over.since) // over.part * over.part
        counts[begins] = counts.get(begins, 0) + line.requests
    return counts
