"""Money in integers: prices are exact or refused, and each event is rounded once, half to even."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_base import money


@pytest.mark.parametrize(
    ("text", "pico"),
    [("0", 0), ("0.15", 150_000), ("18.75", 18_750_000), ("0.000001", 1), ("60", 60_000_000)],
)
def test_a_price_becomes_whole_pico_dollars(text: str, pico: int) -> None:
    assert money.usd_per_million_to_pico(text) == pico


@pytest.mark.parametrize("text", ["-1", "", "abc", "0.0000001", "NaN", "Infinity", "1e-9", "1,5"])
def test_a_price_that_cannot_be_exact_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"price|decimal|finer"):
        money.usd_per_million_to_pico(text)


@given(st.integers(0, 10**24))
def test_rounding_is_half_to_even(pico: int) -> None:
    assert money.pico_to_nano(pico) == int((Decimal(pico) / 1000).quantize(Decimal(1), ROUND_HALF_EVEN))


@given(st.integers(-(10**18), 10**18))
def test_dollars_as_text_are_exact(nano: int) -> None:
    assert Decimal(money.nano_to_usd(nano)) * 10**9 == nano
