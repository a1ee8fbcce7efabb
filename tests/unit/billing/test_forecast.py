"""What a month will cost: exact where days are alike, wide where they scatter, never below what is spent."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import pytest

from penstock_billing import forecast
from penstock_billing.forecast import Method

DOLLAR = 1_000_000_000
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
"""A Saturday, with nine and a half days of its month to come."""


def days_before(now: datetime, count: int) -> list[date]:
    return [now.date() - timedelta(days=number) for number in range(count, 0, -1)]


def test_nothing_used_has_nothing_to_go_by() -> None:
    made = forecast.of_month({}, NOON)
    assert (made.method, made.likely_nano_usd, made.ranged) == (Method.NOTHING, 0, False)


def test_days_that_cost_the_same_go_on_so_without_a_range() -> None:
    costs = dict.fromkeys(days_before(NOON, 28), DOLLAR) | {NOON.date(): DOLLAR // 2}
    made = forecast.of_month(costs, NOON)
    assert made.method is Method.WEEKDAYS
    assert made.spent_nano_usd == 20 * DOLLAR + DOLLAR // 2
    assert made.likely_nano_usd == 30 * DOLLAR
    assert (made.low_nano_usd, made.high_nano_usd) == (30 * DOLLAR, 30 * DOLLAR)


def test_weekends_are_expected_to_be_weekends() -> None:
    costs = {day: (DOLLAR if day.weekday() < 5 else 0) for day in days_before(NOON, 28)}
    made = forecast.of_month(costs, NOON)
    # 22 November to the end: six working days, Monday 23 to 27 and Monday 30.
    assert made.likely_nano_usd == made.spent_nano_usd + 6 * DOLLAR
    assert not made.ranged


def test_with_less_than_two_weeks_every_day_counts_alike() -> None:
    costs = dict.fromkeys(days_before(NOON, 10), DOLLAR)
    made = forecast.of_month(costs, NOON)
    assert (made.method, made.days_known) == (Method.MEAN, 10)
    assert made.likely_nano_usd == 10 * DOLLAR + 19 * DOLLAR // 2


def test_days_without_use_after_the_first_are_known_days() -> None:
    first = NOON.date() - timedelta(days=4)
    made = forecast.of_month({first: 4 * DOLLAR}, NOON)
    assert made.days_known == 4
    assert made.likely_nano_usd == 4 * DOLLAR + 19 * DOLLAR // 2
    assert made.low_nano_usd == 4 * DOLLAR  # what is spent is spent
    assert made.high_nano_usd > made.likely_nano_usd


def test_the_first_day_alone_goes_on_as_it_began() -> None:
    made = forecast.of_month({NOON.date(): DOLLAR}, NOON)
    assert (made.method, made.ranged) == (Method.TODAY, False)
    assert made.likely_nano_usd == DOLLAR + 19 * DOLLAR  # a dollar for each half day


def test_minutes_after_midnight_of_the_first_day_are_no_rate() -> None:
    now = NOON.replace(hour=0, minute=1)
    made = forecast.of_month({now.date(): DOLLAR}, now)
    assert made.likely_nano_usd < DOLLAR + 24 * 10 * DOLLAR


def test_at_the_end_of_the_month_it_is_what_is_spent() -> None:
    now = datetime(2026, 12, 1, tzinfo=UTC) - timedelta(microseconds=1)
    made = forecast.of_month(dict.fromkeys(days_before(now, 29), DOLLAR) | {now.date(): DOLLAR}, now)
    assert made.spent_nano_usd == made.likely_nano_usd == 30 * DOLLAR


def test_days_of_the_month_before_tell_the_rate_and_are_not_spent() -> None:
    now = datetime(2026, 11, 1, 0, 0, tzinfo=UTC)
    made = forecast.of_month(dict.fromkeys(days_before(now, 28), DOLLAR), now)
    assert (made.spent_nano_usd, made.likely_nano_usd) == (0, 30 * DOLLAR)


def test_time_is_that_of_utc() -> None:
    elsewhere = NOON.astimezone().replace(tzinfo=None).astimezone()
    costs = dict.fromkeys(days_before(NOON, 5), 7)
    assert forecast.of_month(costs, elsewhere) == forecast.of_month(costs, NOON)


@pytest.mark.parametrize("days", [5, 12, 28])
def test_months_end_within_the_range_in_about_eight_of_ten_cases(days: int) -> None:
    dice = random.Random(days)
    inside, tries = 0, 400
    for _ in range(tries):
        month = [dice.randrange(DOLLAR, 9 * DOLLAR) for _ in range(days + 10)]
        known = dict(zip(days_before(NOON, days), month, strict=False))
        now = NOON.replace(hour=0)
        made = forecast.of_month(known, now)
        ended = made.spent_nano_usd + sum(month[days:])
        inside += made.low_nano_usd <= ended <= made.high_nano_usd
    assert 0.65 < inside / tries < 0.9
