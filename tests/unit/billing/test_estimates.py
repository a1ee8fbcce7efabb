"""An estimate is what the ledger would charge, to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_billing import rating
from penstock_billing.errors import UsageRefused
from penstock_billing.estimates import DAYS_PER_MONTH, Traffic, estimate
from penstock_billing.prices import PriceVersion

PICO = st.integers(0, 10**8)
TOKENS = st.integers(0, 10**6)


def price(pico: int, cached: int, output: int) -> PriceVersion:
    return PriceVersion(1, "m", pico, cached, output, datetime(2026, 1, 1, tzinfo=UTC))


@given(PICO, PICO, PICO, TOKENS, TOKENS, TOKENS, st.integers(0, 10**9))
def test_a_month_is_the_sum_of_its_requests_as_they_are_charged(
    pico: int, cached_pico: int, output_pico: int, fresh: int, cached: int, output: int, requests: int
) -> None:
    traffic = Traffic(
        requests_per_day=requests, input_tokens=fresh + cached, cached_tokens=cached, output_tokens=output
    )
    paid = price(pico, cached_pico, output_pico)
    charged = rating.cost_nano_usd(
        paid, input_tokens=fresh + cached, cached_tokens=cached, output_tokens=output
    )
    found = estimate(paid, traffic)
    assert found.request_nano_usd == charged
    assert found.month_nano_usd == charged * requests * DAYS_PER_MONTH == found.day_nano_usd * DAYS_PER_MONTH


def test_more_cached_than_input_tokens_are_refused() -> None:
    with pytest.raises(UsageRefused):
        estimate(price(1, 1, 1), Traffic(input_tokens=1, cached_tokens=2))
