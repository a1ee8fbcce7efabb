"""What `GET /api/v1/usage` and `penstock usage` understand, and what they refuse in words."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from penstock.edge.api import usage_questions
from penstock.edge.api.usage_questions import Asked
from penstock.edge.refusals import BadRequest
from penstock_billing.intervals import IntervalKind
from penstock_billing.minutes import MinuteUsage
from penstock_billing.usage import Dimension, Freshness, Question, Step, UsageLine

NOW = datetime(2026, 11, 21, 13, 14, 15, tzinfo=UTC)


def read(**asked: str) -> Question:
    return usage_questions.read(7, Asked(**asked), NOW)


def test_without_anything_it_is_thirty_days_by_day_and_model() -> None:
    assert read() == Question(
        organisation_id=7,
        since=datetime(2026, 10, 23, tzinfo=UTC),
        until=datetime(2026, 11, 22, tzinfo=UTC),
        step=Step.DAY,
        by=frozenset({Dimension.MODEL}),
    )


def test_days_are_included_and_moments_are_not() -> None:
    days = read(since="2026-11-01", until="2026-11-02", by="key,hour")
    assert (days.since, days.until) == (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC))
    assert (days.step, days.by) == (Step.HOUR, {Dimension.KEY})
    assert usage_questions.bounds(days) == (date(2026, 11, 1), date(2026, 11, 2))
    moments = read(since="2026-11-01T10:30+02:00", until="2026-11-01T09:00Z", by="")
    assert moments.until - moments.since == timedelta(minutes=30)
    assert (moments.step, moments.by) == (Step.TOTAL, frozenset())
    assert usage_questions.bounds(moments) == (moments.since, moments.until)


def test_a_finer_step_is_asked_for_less_time_when_none_is_named() -> None:
    assert read(by="minute").since == datetime(2026, 11, 20, tzinfo=UTC)


def test_filters_are_taken_as_they_are() -> None:
    asked = read(project="12", key="key_x", model="a/b", endpoint="")
    assert (asked.project_id, asked.key_id, asked.model, asked.endpoint) == (12, "key_x", "a/b", "")


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": ""}, "since"),
        ({"since": "0001-01-01"}, "since"),
        ({"until": "0001-01-01"}, "until"),
        ({"until": "9999-12-31"}, "until"),
        ({"until": "9999-12-31T23:59-23:59"}, "until"),
        ({"until": "2026-11-21T10:00"}, "until"),
        ({"until": "2026-11-21T10:00:30Z"}, "until"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, "since"),
        ({"since": "2026-11-22"}, "since"),
        ({"since": "2024-11-02"}, "since"),
        ({"since": "2026-11-01", "by": "minute"}, "since"),
        ({"by": "day,colour"}, "by"),
        ({"by": "day,hour"}, "by"),
        ({"by": "total"}, "by"),
        ({"project": "mine"}, "project"),
        ({"project": "-1"}, "project"),
        ({"project": "9" * 19}, "project"),
        ({"project": "9" * 9999}, "project"),
        ({"project": "\u0661"}, "project"),
        ({"model": "a\0b"}, "model"),
        ({"key": "k" * 257}, "key"),
        ({"endpoint": "a\nb"}, "endpoint"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(asked: dict[str, str], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(**asked)
    assert refused.value.param == param
    assert str(refused.value)[:-1].isprintable()
    assert len(str(refused.value)) < 300


def test_an_answer_names_only_what_was_told_apart() -> None:
    line = UsageLine(
        at=datetime(2026, 11, 1, tzinfo=UTC),
        model="a",
        project_id=None,
        key_id=None,
        endpoint=None,
        requests=2,
        failed_requests=1,
        input_tokens=3,
        cached_tokens=0,
        output_tokens=4,
        reasoning_tokens=0,
        cost_nano_usd=1_500_000_000,
    )
    told = usage_questions.answer(read(), [line], [], Freshness(NOW, None))
    assert (told["since"], told["until"]) == (date(2026, 10, 23), date(2026, 11, 21))
    assert told["as_of"] == NOW
    (first,) = told["data"]
    assert first["day"] == date(2026, 11, 1)
    assert (first["model"], first["requests"], first["failed_requests"]) == ("a", 2, 1)
    assert (first["cost_nano_usd"], first["cost_usd"]) == (1_500_000_000, "1.500000000")
    assert not {"project_id", "key_id", "endpoint", "at"} & set(first)


def minutes_of(endpoint: str, project_id: int = 1, minutes: int = 10, interval: int = 1) -> MinuteUsage:
    return MinuteUsage(
        interval_id=interval,
        kind=IntervalKind.ENDPOINT,
        subject=f"{interval}",
        priced_as="serverless",
        model="penstock/demo-chat",
        endpoint=endpoint,
        project_id=project_id,
        minute_price_version=1,
        nano_usd_per_minute=100,
        minutes=minutes,
        cost_nano_usd=100 * minutes,
    )


def test_minutes_of_one_endpoint_are_one_line_however_often_it_stopped() -> None:
    charged = [minutes_of("desk"), minutes_of("desk", interval=2), minutes_of("other", interval=3)]
    found = usage_questions.minutes(read(), charged)
    assert [(each.endpoint, each.minutes, each.cost_nano_usd) for each in found] == [
        ("desk", 20, 2000),
        ("other", 10, 1000),
    ]


@pytest.mark.parametrize(
    ("asked", "endpoints"),
    [
        ({"endpoint": "desk"}, ["desk"]),
        ({"project": "2"}, ["other"]),
        ({"model": "penstock/demo-embed"}, []),
        ({"key": "key_1"}, []),
    ],
)
def test_minutes_are_those_that_were_asked_about(asked: dict[str, str], endpoints: list[str]) -> None:
    charged = [minutes_of("desk"), minutes_of("other", project_id=2, interval=2)]
    found = usage_questions.minutes(read(**asked), charged)
    assert [each.endpoint for each in found] == endpoints
