from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_billing import minutes

TEN = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{text}+00:00")


@pytest.mark.parametrize(
    ("ready", "stopped", "charged"),
    [
        ("10:00:00", "10:00:00", 0),
        ("10:00:00", "10:00:00.000001", 1),
        ("10:00:00", "10:01:00", 1),
        ("10:00:00", "10:01:00.000001", 2),
        ("10:00:00.000001", "10:01:00", 0),
        ("10:00:59.999999", "10:01:00.000001", 1),
        ("10:00:20", "10:00:50", 0),
        ("10:00:20", "10:03:10", 3),
        ("10:03:00", "10:00:00", 0),
    ],
)
def test_a_minute_counts_when_its_beginning_is_in_the_interval(
    ready: str, stopped: str, charged: int
) -> None:
    assert minutes.minutes_between(at(ready), at(stopped)) == charged


@given(st.integers(-(10**9), 10**9), st.integers(0, 3600 * 10**6))
def test_the_closed_form_is_the_number_of_beginnings(start_us: int, length_us: int) -> None:
    ready = TEN + timedelta(microseconds=start_us)
    stopped = ready + timedelta(microseconds=length_us)
    first = ready.replace(second=0, microsecond=0)
    beginnings = [first + timedelta(minutes=number) for number in range(63)]
    assert minutes.minutes_between(ready, stopped) == sum(ready <= one < stopped for one in beginnings)


@given(st.lists(st.integers(0, 7200 * 10**6), min_size=2, max_size=6))
def test_cutting_an_interval_anywhere_changes_nothing(cuts_us: list[int]) -> None:
    moments = [TEN + timedelta(microseconds=cut) for cut in sorted(cuts_us)]
    parts = sum(minutes.minutes_between(a, b) for a, b in itertools.pairwise(moments))
    assert parts == minutes.minutes_between(moments[0], moments[-1])
