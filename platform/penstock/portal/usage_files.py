"""Usage as files: what the page shows, part by part; and every line that is kept, by the minute."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import asyncpg
from msgspec.structs import replace

from penstock.access import labels
from penstock.portal import usage_view
from penstock.portal.downloads import Cell
from penstock.portal.usage_question import Asked, By
from penstock.portal.usage_view import Names
from penstock_base import money
from penstock_billing import minute_usage, usage
from penstock_billing.minute_usage import MinuteLine
from penstock_billing.prices import PriceVersion
from penstock_billing.usage import Dimension, Question, Step, UsageLine

Lines = AsyncIterator[Iterable[Sequence[Cell]]]
COUNTS = ("requests", "failed_requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
OTHER_COUNTS = ("images", "audio_ms", "documents")
ALL = frozenset(Dimension)


async def shown(
    pool: asyncpg.Pool,
    organisation_id: int,
    asked: Asked,
    projects: dict[int, str],
    version: Callable[[int], PriceVersion | None],
) -> Lines:
    """Every step and every part of the page, also those that its chart has no colour for."""
    yield [
        (
            "begins_utc",
            "step",
            asked.by.value,
            "name",
            "requests",
            "failed_requests",
            "input_tokens",
            "cached_tokens",
            "output_tokens",
            "count" if asked.by is By.UNIT else "minutes",
            "cost_nano_usd",
            "cost_usd",
        )
    ]
    question = asked.question(organisation_id, step=asked.step, by=frozenset({asked.by.dimension}))
    async for part in _parts(pool, question):
        lines, minutes = part
        names = await _names(pool, organisation_id, projects, lines)
        both: list[UsageLine | MinuteLine] = [*lines, *minutes]
        times = sorted({each.at for each in both if each.at is not None})
        made: list[Sequence[Cell]] = []
        for at in times:
            rows = usage_view.rows(
                asked,
                [each for each in lines if each.at == at],
                [each for each in minutes if each.at == at],
                names,
                version,
            )
            for row in rows:
                sums = row.sums
                made.append(
                    (
                        at,
                        asked.step.value,
                        "" if row.part == usage_view.NO_KEY else row.part,
                        row.name,
                        sums.requests,
                        sums.failed_requests,
                        sums.input_tokens,
                        sums.cached_tokens,
                        sums.output_tokens,
                        row.count if asked.by is By.UNIT else sums.minutes,
                        sums.cost_nano_usd,
                        money.nano_to_usd(sums.cost_nano_usd),
                    )
                )
        yield made


async def all_lines(
    pool: asyncpg.Pool, organisation_id: int, asked: Asked, projects: dict[int, str]
) -> Lines:
    """What the roll-ups keep, minute by minute, with nothing summed up; charged minutes among it."""
    yield [
        (
            "minute_utc",
            "what",
            "model",
            "endpoint",
            "project_id",
            "project",
            "key_id",
            "key",
            "price_version",
            *COUNTS,
            *OTHER_COUNTS,
            "minutes",
            "cost_nano_usd",
            "cost_usd",
        )
    ]
    async for lines, minutes in _parts(pool, asked.question(organisation_id, step=Step.MINUTE, by=ALL)):
        names = await _names(pool, organisation_id, projects, lines)
        yield [_line(line, names) for line in lines]
        yield [_minutes(line, names) for line in minutes]


async def _parts(
    pool: asyncpg.Pool, question: Question
) -> AsyncIterator[tuple[list[UsageLine], list[MinuteLine]]]:
    """A day's lines and charged minutes at a time."""
    for part in usage.cut(question):
        yield (
            [line async for lines in usage.read_all(pool, part) for line in lines],
            await minute_usage.read(pool, replace(part, only=None)),
        )


async def _names(
    pool: asyncpg.Pool, organisation_id: int, projects: dict[int, str], lines: list[UsageLine]
) -> Names:
    key_ids = {line.key_id for line in lines if line.key_id}
    return Names(projects, await labels.keys(pool, organisation_id, key_ids) if key_ids else {})


def _line(line: UsageLine, names: Names) -> Sequence[Cell]:
    return (
        line.at,
        "requests",
        line.model,
        line.endpoint,
        line.project_id,
        names.projects.get(line.project_id or 0),
        line.key_id,
        names.keys.get(line.key_id or ""),
        line.price_version,
        *(getattr(line, name) for name in (*COUNTS, *OTHER_COUNTS)),
        None,
        line.cost_nano_usd,
        money.nano_to_usd(line.cost_nano_usd),
    )


def _minutes(line: MinuteLine, names: Names) -> Sequence[Cell]:
    return (
        line.at,
        f"{line.kind.value}-minutes",
        line.model,
        line.endpoint,
        line.project_id,
        names.projects.get(line.project_id),
        None,
        None,
        None,
        *(None for _ in (*COUNTS, *OTHER_COUNTS)),
        line.minutes,
        line.cost_nano_usd,
        money.nano_to_usd(line.cost_nano_usd),
    )
