from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_billing import price_units
from penstock_billing.price_units import BY_NAME, UNITS, Unit


@pytest.mark.parametrize(
    ("unit", "text", "pico"),
    [
        ("input", "0.15", 150_000),
        ("input", "0.000001", 1),
        ("output", "1000000", 10**12),
        ("image", "0.04", 40_000_000_000),
        ("document", "0.000000000001", 1),
        # 0.006 dollars per minute of audio is 0.0001 per second.
        ("audio_minute", "0.006", 100_000_000),
    ],
)
def test_a_price_becomes_pico_dollars_for_one(unit: str, text: str, pico: int) -> None:
    assert price_units.pico_usd(BY_NAME[unit], text) == pico


@pytest.mark.parametrize(
    ("unit", "text", "problem"),
    [
        ("input", "-1", "is not a price such as 0.15"),
        ("input", "+1", "no sign"),
        ("input", "1e3", "is not a price"),
        ("input", "0,15", "is not a price"),
        ("input", "1_000", "is not a price"),
        ("input", "٣", "is not a price"),
        ("input", "NaN", "is not a price"),
        ("input", "", "is not a price"),
        ("input", "0.1234567", "finer than a pico-dollar per token: at most 6 decimals"),
        ("image", "0.0000000000001", "at most 12 decimals"),
        ("image", "0." + "1" * 18, "at most 12 decimals"),
        ("output", "1000000.000001", "more than the 1,000,000"),
        ("audio_minute", "0.000000000061", "nearest that can are 0.00000000006, 0.00000000012"),
    ],
)
def test_what_the_integers_cannot_hold_is_refused(unit: str, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        price_units.pico_usd(BY_NAME[unit], text)


@given(st.sampled_from(UNITS), st.integers(0, 10**12))
def test_a_price_is_written_as_it_is_read(unit: Unit, pico: int) -> None:
    assert price_units.pico_usd(unit, price_units.usd_text(unit, pico)) == pico


@given(st.integers(0, 10**15))
def test_a_minutes_price_is_written_as_it_is_read(nano: int) -> None:
    assert price_units.nano_usd_per_minute(price_units.usd_per_minute_text(nano)) == nano


def test_an_hours_price_is_sixty_minutes_or_refused() -> None:
    assert price_units.nano_usd_per_minute("1.20", minutes=60) == 20_000_000
    with pytest.raises(ValueError, match=r"nearest that can be charged are 0\.99999996, 1\.00000002"):
        price_units.nano_usd_per_minute("1", minutes=60)


@given(st.integers(0, 1_000_000))
def test_a_discount_is_written_as_it_is_read(ppm: int) -> None:
    assert price_units.discount_ppm(price_units.discount_text(ppm)) == ppm


@pytest.mark.parametrize("text", ["50", "0.5", "-1%", "100.0001%", "101%", "1.23456%", "half", "%"])
def test_other_discounts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match='from "0%" to "100%"'):
        price_units.discount_ppm(text)


def test_dollars_have_at_least_cents() -> None:
    texts = [price_units.usd_text(BY_NAME["input"], pico) for pico in (0, 1, 600_000, 75_000, 2_000_000)]
    assert texts == ["0.00", "0.000001", "0.60", "0.075", "2.00"]


def test_change_is_told_in_percent() -> None:
    told = [price_units.percent_change(*pair) for pair in ((5, 5), (0, 5), (100, 110), (200, 50), (5, 0))]
    assert told == ["", "new", "+10.0 %", "-75.0 %", "-100.0 %"]
