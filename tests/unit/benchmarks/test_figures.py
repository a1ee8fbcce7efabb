from __future__ import annotations

import json

from benchmarks import figures
from benchmarks.figures import Figure


def test_a_ceiling_holds_up_to_the_bar_itself() -> None:
    assert Figure(name="a", figure=200.0, unit="us", bar=200.0).holds is True
    assert Figure(name="a", figure=200.1, unit="us", bar=200.0).holds is False


def test_a_floor_holds_from_the_bar_itself() -> None:
    assert Figure(name="a", figure=97.0, unit="%", bar=97.0, at_least=True).holds is True
    assert Figure(name="a", figure=96.9, unit="%", bar=97.0, at_least=True).holds is False


def test_without_a_bar_nothing_holds_or_fails() -> None:
    assert Figure(name="a", figure=1.0, unit="us").holds is None


def test_json_is_a_list_of_objects_with_exactly_the_promised_fields() -> None:
    text = figures.as_json([Figure(name="a", figure=1.5, unit="us", bar=2.0, note="how")])

    assert json.loads(text) == [{"name": "a", "figure": 1.5, "unit": "us", "bar": 2.0, "holds": True}]


def test_a_skipped_figure_says_why_in_json_too() -> None:
    [skipped] = json.loads(figures.as_json([Figure(name="a", figure=None, unit="us", note="not installed")]))

    assert skipped["figure"] is None
    assert skipped["holds"] is None
    assert skipped["note"] == "not installed"
