"""CSV that a spreadsheet opens without doing anything, and that keeps numbers numbers."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta, timezone

import pytest

from penstock.portal import downloads


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'])
def test_text_that_would_be_a_formula_is_text(text: str) -> None:
    [[cell]] = csv.reader(io.StringIO(downloads.line([text]), newline=""))
    assert cell == "'" + text


def test_numbers_stay_numbers_and_nothing_stays_nothing() -> None:
    assert downloads.line([-5, None, 12_345_678_901_234_567_890]) == "-5,,12345678901234567890\r\n"


def test_commas_quotes_and_line_ends_stay_in_their_cell() -> None:
    cells = ['a,"b"', "c\nd", "e"]
    [found] = csv.reader(io.StringIO(downloads.line(cells), newline=""))
    assert found == cells


def test_times_are_those_of_utc() -> None:
    moment = datetime(2026, 11, 21, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert downloads.line([moment, datetime(2026, 1, 2, tzinfo=UTC)]) == (
        "2026-11-20T23:00:00Z,2026-01-02T00:00:00Z\r\n"
    )
