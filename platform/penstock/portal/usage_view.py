"""From lines of usage and minutes to what the usage page shows: parts, bars, sums. Pure; exact integers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from penstock.portal.usage_question import LENGTHS, Asked, By, Measure
from penstock_base import money
from penstock_billing import unit_costs
from penstock_billing.minute_usage import MinuteLine
from penstock_billing.price_units import TOKENS
from penstock_billing.prices import PriceVersion
from penstock_billing.usage import Step, UsageLine, UsageTotals

PARTS_MAX = 7
"""Told apart in the chart; the others are one."""
ROWS_MAX = 100
"""Of the table; the file has all."""
OTHERS = "\0others"
"""The part of all that are not told apart; no name has this character."""
NO_KEY = "\0minutes"
SPOKEN = {OTHERS: "Others", NO_KEY: "Minutes, which belong to no key"}
UNIT_LABELS = {
    "input": "Input tokens",
    "cached_input": "Cached input tokens",
    "output": "Output tokens",
    "image": "Images",
    "audio_minute": "Audio, ms",
    "document": "Documents",
    "endpoint": "Endpoint-minutes",
    "instance": "Instance-minutes",
    unit_costs.REMAINDER: "Rounding and discounts",
}


class Sums(msgspec.Struct):
    """What is counted, of anything; minutes beside requests."""

    requests: int = 0
    failed_requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    minutes: int = 0
    cost_nano_usd: int = 0

    def add(self, line: UsageTotals | MinuteLine | Sums) -> None:
        """Take a line's numbers in."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(line, name, 0))

    def measured(self, measure: Measure) -> int:
        """The number that the chart shows of it."""
        if measure is Measure.COST:
            return self.cost_nano_usd
        return self.requests if measure is Measure.REQUESTS else self.input_tokens + self.output_tokens


class Row(msgspec.Struct, kw_only=True):
    """One part of the whole: a model, a key, a unit."""

    part: str
    name: str
    href: str = ""
    """The same page of this part only; empty where it has none."""
    sums: Sums
    count: int | None = None
    """Of units: how many."""

    def share(self, whole: Sums) -> float:
        """Its percentage of the cost."""
        return 100 * self.sums.cost_nano_usd / whole.cost_nano_usd if whole.cost_nano_usd else 0.0


class Bar(msgspec.Struct, kw_only=True):
    """One step of time."""

    at: datetime
    label: str
    href: str
    parts: list[int]
    """Of the measure, in the order of the series."""
    sums: Sums


class Names(msgspec.Struct):
    """What people call projects and keys."""

    projects: dict[int, str]
    keys: dict[str, str]


def total(lines: Iterable[UsageTotals | MinuteLine | Sums]) -> Sums:
    """All of them."""
    sums = Sums()
    for line in lines:
        sums.add(line)
    return sums


def part_of(by: By, line: UsageLine | MinuteLine) -> str:
    """Which part a line belongs to, as an address names it."""
    if isinstance(line, MinuteLine):
        if by is By.UNIT:
            return line.kind.value
        if by is By.KEY:
            return NO_KEY
    fields = {By.PROJECT: "project_id", By.KEY: "key_id"}
    value = getattr(line, fields.get(by, by.value))
    return OTHERS if value is None else str(value)


def rows(
    asked: Asked,
    lines: list[UsageLine],
    minutes: list[MinuteLine],
    names: Names,
    version: Callable[[int], PriceVersion | None],
) -> list[Row]:
    """The parts, what costs most first."""
    found: dict[str, Sums] = {}
    counts: dict[str, int] = {}
    if asked.by is By.UNIT:
        for each in unit_costs.split(lines, version):
            found[each.unit] = Sums(cost_nano_usd=each.cost_nano_usd)
            counts[each.unit] = each.count
    else:
        for line in lines:
            found.setdefault(part_of(asked.by, line), Sums()).add(line)
    for minute in minutes:
        part = part_of(asked.by, minute)
        found.setdefault(part, Sums()).add(minute)
        counts[part] = counts.get(part, 0) + minute.minutes
    made = [
        Row(
            part=part,
            name=label(asked.by, part, names),
            href=_filtered(asked, part),
            sums=sums,
            count=counts.get(part),
        )
        for part, sums in found.items()
    ]
    made.sort(key=lambda row: (-row.sums.cost_nano_usd, -row.sums.requests, row.part))
    if asked.by is By.UNIT:
        made.sort(key=lambda row: list(UNIT_LABELS).index(row.part))
    return made


def label(by: By, part: str, names: Names) -> str:
    """What people call a part."""
    if part in SPOKEN:
        return SPOKEN[part]
    if by is By.PROJECT:
        return names.projects.get(int(part), f"project {part}")
    if by is By.KEY:
        return names.keys.get(part, part)
    if by is By.UNIT:
        return UNIT_LABELS[part]
    return part or ("Models by name, no endpoint" if by is By.ENDPOINT else "no model")


def told_apart(asked: Asked, found: list[Row]) -> list[str]:
    """The parts that the chart shows by themselves: what has most of its measure."""
    if asked.by is By.UNIT:
        return [row.part for row in found]
    ranked = sorted(found, key=lambda row: (-row.sums.measured(asked.measure), row.part))
    return [row.part for row in ranked if row.sums.measured(asked.measure)][:PARTS_MAX]


def bars(
    asked: Asked,
    lines: list[UsageLine],
    minutes: list[MinuteLine],
    series: list[str],
    now: datetime,
    version: Callable[[int], PriceVersion | None],
) -> list[Bar]:
    """Every step of the window until now, those without usage too; what has no series counts as others."""
    by_time: dict[datetime, list[UsageLine]] = {}
    for line in lines:
        assert line.at is not None
        by_time.setdefault(line.at, []).append(line)
    minutes_by_time: dict[datetime, list[MinuteLine]] = {}
    for minute in minutes:
        assert minute.at is not None
        minutes_by_time.setdefault(minute.at, []).append(minute)
    made = []
    for at in _times(asked, now):
        used, charged = by_time.get(at, []), minutes_by_time.get(at, [])
        parts = dict.fromkeys(series, 0)
        for part, value in _values(asked, used, charged, version):
            known = part if part in parts else OTHERS
            parts[known] = parts.get(known, 0) + value
        made.append(
            Bar(
                at=at,
                label=time_label(asked.step, at),
                href=asked.inside(at),
                parts=[parts[part] for part in series],
                sums=total([*used, *charged]),
            )
        )
    return made


def chart(asked: Asked, found: list[Bar], series: list[str], names: Names) -> dict[str, Any]:
    """What js/charts.js draws; dollars as numbers, near enough for pixels. `links` is for js/usage.js."""
    money_shown = asked.measure is Measure.COST
    return {
        "type": "bar",
        "labels": [bar.label for bar in found],
        "stacked": True,
        "unit": "usd" if money_shown else "tokens" if asked.measure is Measure.TOKENS else "",
        "series": [
            {
                "name": label(asked.by, part, names),
                "values": [
                    bar.parts[number] / money.NANO_PER_USD if money_shown else bar.parts[number]
                    for bar in found
                ],
            }
            for number, part in enumerate(series)
            # A few nano-dollars, below 0 half of the time: no bar.
            if part != unit_costs.REMAINDER
        ],
        "links": [bar.href for bar in found],
    }


def time_label(step: Step, at: datetime) -> str:
    """A step of time in few characters (UTC)."""
    utc = at.astimezone(UTC)
    return f"{utc.day} {utc:%b}" if step is Step.DAY else f"{utc:%H:%M}"


def cost_by_day(lines: Iterable[UsageLine], minutes: Iterable[MinuteLine]) -> dict[datetime, Sums]:
    """What each day has, by its beginning."""
    days: dict[datetime, Sums] = {}
    both: list[UsageLine | MinuteLine] = [*lines, *minutes]
    for line in both:
        assert line.at is not None
        days.setdefault(line.at.astimezone(UTC), Sums()).add(line)
    return days


def dollars_about(nano_usd: int) -> str:
    """An amount that is no exact number anyway: to the cent, or to three digits where that says nothing."""
    if nano_usd >= money.NANO_PER_USD or nano_usd == 0:
        return f"${(nano_usd + 5_000_000) // 10_000_000 / 100:,.2f}"
    digits = 3 - len(str(nano_usd))
    return f"${round(nano_usd, digits) / money.NANO_PER_USD:.9f}".rstrip("0")


def _values(
    asked: Asked,
    used: list[UsageLine],
    charged: list[MinuteLine],
    version: Callable[[int], PriceVersion | None],
) -> Iterable[tuple[str, int]]:
    """Each part's share in the measure, in one step of time."""
    measure = asked.measure
    if asked.by is By.UNIT:
        for each in unit_costs.split(used, version):
            if measure is Measure.COST:
                yield each.unit, each.cost_nano_usd
            elif measure is Measure.TOKENS and each.unit in TOKENS_SHOWN:
                yield each.unit, each.count
    else:
        for line in used:
            yield part_of(asked.by, line), total([line]).measured(measure)
    if measure is Measure.COST:
        for minute in charged:
            yield part_of(asked.by, minute), minute.cost_nano_usd


TOKENS_SHOWN = frozenset(unit.name for unit in TOKENS)


def _times(asked: Asked, now: datetime) -> list[datetime]:
    """When each step begins, until the one of now, or to the end where all lies ahead."""
    length = LENGTHS[asked.step]
    at = asked.since.astimezone(UTC)
    # A window may begin within a step; its first bar is that step, as the roll-ups name it.
    at = at.replace(minute=0, hour=0) if asked.step is Step.DAY else at
    at = at.replace(minute=0) if asked.step is Step.HOUR else at
    end = asked.until if asked.since > now else min(asked.until, now)
    times = []
    while at < end:
        times.append(at)
        at += length
    return times


def _filtered(asked: Asked, part: str) -> str:
    if asked.by is By.UNIT or part in {OTHERS, NO_KEY}:
        return ""
    return asked.url(**{asked.by.value: part})
