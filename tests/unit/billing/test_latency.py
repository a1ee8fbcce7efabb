from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstock_billing.latency import Sample, taken, window

NOW = datetime(2026, 11, 21, 14, 37, 5, tzinfo=UTC)


def test_a_window_ends_with_the_part_that_now_is_in() -> None:
    day = window(NOW, timedelta(hours=1), 24)
    assert day.begins[-1] == datetime(2026, 11, 21, 14, tzinfo=UTC)
    assert (day.since, day.until) == (
        datetime(2026, 11, 20, 15, tzinfo=UTC),
        datetime(2026, 11, 21, 15, tzinfo=UTC),
    )
    week = window(NOW, timedelta(hours=6), 28)
    assert week.begins[-1] == datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert week.since == datetime(2026, 11, 14, 18, tzinfo=UTC)


def test_quantiles_are_values_that_were_measured() -> None:
    took = taken([Sample(1.0, True, number, number * 10) for number in range(1, 101)])
    assert took.first_token is not None
    assert took.whole is not None
    assert (took.first_token.p50_us, took.first_token.p90_us, took.first_token.p99_us) == (50, 90, 99)
    assert took.whole.p99_us == 990


def test_a_request_that_stands_for_many_counts_as_many() -> None:
    # A busy hour of slow requests, of which two were read, and a quiet one of which all were.
    busy = [Sample(500.0, True, 1000, 1000)] * 2
    quiet = [Sample(1.0, True, 10, 10)] * 9
    took = taken([*busy, *quiet])
    assert took.whole is not None
    assert (took.requests, took.read) == (1009, 11)
    assert took.whole.p50_us == 1000


def test_only_streamed_answers_have_a_first_token() -> None:
    took = taken([Sample(1.0, False, 700, 900)])
    assert took.first_token is None
    assert took.whole is not None
    assert taken([]).whole is None
