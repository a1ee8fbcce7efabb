"""The usage page's address: what it means, and that following its links keeps everything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from penstock.edge.refusals import BadRequest
from penstock.portal import usage_question
from penstock.portal.usage_question import Asked, By, Measure, Span
from penstock_billing.usage import Dimension, Step

NOW = datetime(2026, 11, 21, 15, 4, 30, tzinfo=UTC)


def read(query: str = "") -> Asked:
    return usage_question.read(dict(parse_qsl(query, keep_blank_values=True)), NOW)


def follow(address: str) -> Asked:
    return read(urlsplit(address).query)


def test_by_default_it_is_this_month_by_day_and_model() -> None:
    asked = read()
    assert (asked.span, asked.step, asked.by, asked.measure) == (
        Span.MONTH,
        Step.DAY,
        By.MODEL,
        Measure.COST,
    )
    assert (asked.since, asked.until) == (
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 11, 22, tzinfo=UTC),
    )
    assert asked.url() == "/portal/usage"


@pytest.mark.parametrize(
    "query",
    [
        "span=last-month&by=key&measure=tokens&model=a%2Fb",
        "since=2026-11-03&until=2026-11-04&step=day&by=unit",
        "since=2026-11-03T10%3A00Z&until=2026-11-03T11%3A00Z&endpoint=&project=7",
        "span=90-days&key=%3Cscript%3E&endpoint=caf%C3%A9",
    ],
)
def test_an_address_that_is_written_again_means_the_same(query: str) -> None:
    assert follow(read(query).url()) == read(query)


def test_one_gets_from_a_month_to_the_requests_of_a_minute_with_all_filters_kept() -> None:
    asked = read("by=key&measure=requests&model=a%2Fb&project=7")
    day = follow(asked.inside(datetime(2026, 11, 3, tzinfo=UTC)))
    assert (day.since, day.until - day.since, day.step) == (
        datetime(2026, 11, 3, tzinfo=UTC),
        timedelta(days=1),
        Step.HOUR,
    )
    hour = follow(day.inside(datetime(2026, 11, 3, 23, tzinfo=UTC)))
    assert (hour.since.hour, hour.until, hour.step) == (
        23,
        datetime(2026, 11, 4, tzinfo=UTC),
        Step.MINUTE,
    )
    assert (hour.by, hour.measure, hour.filters) == (
        By.KEY,
        Measure.REQUESTS,
        {"model": "a/b", "project": "7"},
    )
    minute = urlsplit(hour.inside(datetime(2026, 11, 3, 23, 59, tzinfo=UTC)))
    assert minute.path == "/portal/requests"
    assert dict(parse_qsl(minute.query)) == {
        "since": "2026-11-03T23:59Z",
        "until": "2026-11-03",
        "model": "a/b",
        "project": "7",
    }
    names = [name for name, _ in hour.trail]
    assert names == ["November 2026", "3 November 2026"]
    assert [follow(href).step for _, href in hour.trail] == [Step.DAY, Step.HOUR]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("", "1 to 21 November 2026"),
        ("span=today", "21 November 2026"),
        ("since=2025-12-30&until=2026-01-02", "30 December 2025 to 2 January 2026"),
        ("since=2026-11-03T10:00Z&until=2026-11-03T11:00Z", "3 November 2026, 10:00 to 11:00"),
    ],
)
def test_the_window_is_said_in_words(query: str, title: str) -> None:
    assert read(query).title == title


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("span=decade", "span"),
        ("by=colour", "by"),
        ("measure=joy", "measure"),
        ("step=total", "step"),
        ("step=minute", "step"),
        ("since=2020-01-01", "since"),
        ("since=tomorrow", "since"),
        ("since=2026-11-05&until=2026-11-01", "since"),
        ("project=x", "project"),
        ("model=%00", "model"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_fields_name(query: str, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(query)
    assert refused.value.param == param


def test_what_called_models_by_name_is_another_choice_than_everything() -> None:
    assert read("endpoint=").filters == {"endpoint": ""}
    assert read("endpoint=%2A").filters == read().filters == {}
    assert read("endpoint=").question(1).endpoint == ""
    assert read().question(1, by=frozenset({Dimension.KEY})).endpoint is None
