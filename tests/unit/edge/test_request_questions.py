"""What a URL asks of single requests: times with their units, statuses, ids, and windows that end now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.edge.api import request_questions
from penstock.edge.api.request_questions import Asked
from penstock.edge.refusals import BadRequest
from penstock_base import ids

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


def read(**asked: Any) -> Any:
    return request_questions.read(1, Asked(**asked), NOW)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("0ms", 0),
        ("500ms", 500_000),
        ("2s", 2_000_000),
        ("1.5s", 1_500_000),
        ("1.005 s", 1_005_000),
        ("3m", 180_000_000),
        ("1h", 3_600_000_000),
        ("2d", 172_800_000_000),
    ],
)
def test_a_time_has_its_unit(text: str, us: int) -> None:
    assert read(longer_than=text).longer_than_us == us


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1.2345s", "1w", "3d", "٣s", "1e3s", "9999999999s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as error:
        read(longer_than=text)
    assert error.value.param == "longer_than"


@pytest.mark.parametrize(("text", "between"), [("503", (503, 503)), ("5xx", (500, 599)), ("000", (0, 0))])
def test_a_status_is_one_or_a_hundred(text: str, between: tuple[int, int]) -> None:
    assert read(status=text).statuses == between


@pytest.mark.parametrize("text", ["", "5", "6xx", "xxx", "50x", "5XX", "5030"])
def test_what_is_no_status_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as error:
        read(status=text)
    assert error.value.param == "status"


def test_a_window_within_which_ends_now() -> None:
    wanted = read(within="90m")
    assert wanted.since == NOW - timedelta(minutes=90)
    # A gateway's clock may be ahead.
    assert NOW < wanted.until <= NOW + timedelta(minutes=5)
    assert read(within="1h", until="2026-11-20T10:00Z").since == datetime(2026, 11, 20, 9, tzinfo=UTC)
    for wrong in ({"within": "1h", "since": "2026-11-20"}, {"within": "32d"}, {"within": "soon"}):
        with pytest.raises(BadRequest) as error:
            read(**wrong)
        assert error.value.param == "within"


def test_the_next_page_of_a_window_that_has_moved_on_is_its_next_page() -> None:
    place = "2026-11-21T11:29:59.000Z/01a1fdcaa2977b3ab253ab297b00d7e0"
    assert read(within="1h", after=place).before is not None
    with pytest.raises(BadRequest):
        read(since="2026-11-21T11:30Z", after=place)


def test_an_id_is_looked_for_wherever_it_can_be() -> None:
    old = NOW - timedelta(days=80)
    name = f"req_{ids.uuid7_bytes(int(old.timestamp() * 1000)).hex()}"
    wanted = read(id=name)
    assert wanted.name == name
    assert wanted.since < old < NOW < wanted.until
    assert read(id="mine").since == NOW - timedelta(days=30)
    # Unless a time is named.
    assert read(id=name, since="2026-11-20").since == datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(BadRequest) as error:
        read(id="a\0b")
    assert error.value.param == "id"


def test_a_search_that_was_stopped_says_what_to_narrow() -> None:
    told = request_questions.too_long(read(within="7d", key="k"))
    assert "7 days" in told
    assert "that key" in told
    assert "15 minutes" in request_questions.too_long(read(within="1h"))
