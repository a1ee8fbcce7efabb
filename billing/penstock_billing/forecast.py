"""What a month will cost, judging by the days before: pure arithmetic on what each day cost, in integers.

What is spent is spent. For the rest of the month every day is taken to cost what such days cost lately: the
mean of the same weekday over four weeks where two weeks are known, else the mean of all days known. The range
is where the month ends in eight of ten cases if days go on scattering as they did; it is never below what is
spent already.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from math import isqrt

import msgspec

DAYS_BACK = 28
"""Four of each weekday."""
DAYS_FOR_WEEKDAYS = 14
"""With fewer, a weekday was seen once at most."""
DAYS_FOR_RANGE = 3
Z_PERMILLE = 1_282
"""Eight of ten outcomes of a normal distribution lie within so many thousandths of its deviation."""
DAY_US = 86_400_000_000


class Method(enum.StrEnum):
    """How a forecast was made."""

    NOTHING = "nothing"
    """Nothing was ever used: there is nothing to go by."""
    TODAY = "today"
    """No whole day is known: the rest goes on as today did."""
    MEAN = "mean"
    """Each day costs the mean of the days known."""
    WEEKDAYS = "weekdays"
    """Each day costs the mean of its weekday."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What the month of a moment will have cost when it is over, in nano-dollars."""

    method: Method
    days_known: int
    """Whole days that it goes by."""
    spent_nano_usd: int
    """In this month until now."""
    likely_nano_usd: int
    low_nano_usd: int
    high_nano_usd: int
    """Equal to `likely` where too few days are known to tell how they scatter."""

    @property
    def ranged(self) -> bool:
        """Whether a range is known."""
        return self.low_nano_usd != self.high_nano_usd


def of_month(costs: Mapping[date, int], now: datetime) -> Forecast:
    """Forecast the UTC month of `now` from what each UTC day cost, in nano-dollars; a day not named cost 0.

    Days are known from the first that cost something, and at most DAYS_BACK of them count. Today is not a
    whole day: it counts in what is spent, and what is left of it is forecast.
    """
    now = now.astimezone(UTC)
    today = now.date()
    month = today.replace(day=1)
    after = (month + timedelta(days=32)).replace(day=1)
    spent = sum(cost for day, cost in costs.items() if month <= day <= today)
    used = [day for day, cost in costs.items() if cost and day <= today]
    if not used:
        return _exactly(Method.NOTHING, 0, spent)
    known = _days(max(min(used), today - timedelta(days=DAYS_BACK)), today)
    elapsed_us = (now - datetime(now.year, now.month, now.day, tzinfo=UTC)) // timedelta(microseconds=1)
    # Days to come in parts of DAY_US, so that all stays whole: what is left of today, then whole days.
    ahead = [(today, DAY_US - elapsed_us)]
    ahead += [(day, DAY_US) for day in _days(today + timedelta(days=1), after)]
    if not known:
        rest = costs.get(today, 0) * sum(part for _, part in ahead) // max(elapsed_us, DAY_US // 24)
        return _exactly(Method.TODAY, 0, spent, spent + rest)
    method = Method.WEEKDAYS if len(known) >= DAYS_FOR_WEEKDAYS else Method.MEAN
    groups: dict[int, list[int]] = {}
    for day in known:
        groups.setdefault(_group(method, day), []).append(costs.get(day, 0))
    means = {group: sum(each) // len(each) for group, each in groups.items()}
    rest = sum(means[_group(method, day)] * part for day, part in ahead) // DAY_US
    likely = spent + rest
    free = len(known) - len(groups)
    if len(known) < DAYS_FOR_RANGE or free < 1:
        return _exactly(method, len(known), spent, likely)
    squares = sum((costs.get(day, 0) - means[_group(method, day)]) ** 2 for day in known)
    left_us = sum(part for _, part in ahead)
    # The days to come scatter each, and the mean that they were given is itself off for all of them alike.
    scatter = squares * left_us // DAY_US + squares * left_us**2 // (DAY_US**2 * len(known))
    margin = Z_PERMILLE * isqrt(scatter // free) // 1000
    return Forecast(
        method=method,
        days_known=len(known),
        spent_nano_usd=spent,
        likely_nano_usd=likely,
        low_nano_usd=max(spent, likely - margin),
        high_nano_usd=likely + margin,
    )


def _days(since: date, until: date) -> list[date]:
    return [since + timedelta(days=number) for number in range((until - since).days)]


def _group(method: Method, day: date) -> int:
    return day.weekday() if method is Method.WEEKDAYS else 0


def _exactly(method: Method, days: int, spent: int, likely: int | None = None) -> Forecast:
    """A forecast without a range."""
    end = spent if likely is None else likely
    return Forecast(
        method=method,
        days_known=days,
        spent_nano_usd=spent,
        likely_nano_usd=end,
        low_nano_usd=end,
        high_nano_usd=end,
    )
