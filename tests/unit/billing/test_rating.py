from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_base import money
from penstock_billing import rating
from penstock_billing.errors import UsageRefused
from penstock_billing.prices import PriceVersion
from penstock_billing.record import Outcome
from penstock_billing.testing import usage_record


def price(input_: str = "0", cached: str = "0", output: str = "0") -> PriceVersion:
    return PriceVersion(
        1,
        "m",
        money.usd_per_million_to_pico(input_),
        money.usd_per_million_to_pico(cached),
        money.usd_per_million_to_pico(output),
        datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_a_request_costs_its_tokens_times_the_prices_per_million() -> None:
    assert rating.cost_nano_usd(1_000_000, 0, 0, price(input_="0.15")) == 150_000_000
    assert rating.cost_nano_usd(1_000_000, 1_000_000, 0, price("0.15", cached="0.075")) == 75_000_000
    assert rating.cost_nano_usd(300, 200, 50, price("0.15", "0.075", "0.60")) == 15_000 + 15_000 + 30_000


def test_cached_tokens_are_a_part_of_the_input_and_not_charged_twice() -> None:
    assert rating.cost_nano_usd(10, 10, 0, price(input_="1", cached="0")) == 0


def test_a_price_below_a_nano_dollar_per_token_is_kept_exactly() -> None:
    # 18.75 nano-dollars per token: rounding the price itself would overcharge by 1.33 %.
    assert rating.cost_nano_usd(4, 4, 0, price(cached="0.01875")) == 75
    assert rating.cost_nano_usd(1_000_000, 1_000_000, 0, price(cached="0.01875")) == 18_750_000


@pytest.mark.parametrize(("tokens", "nano"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_goes_to_the_even_one(tokens: int, nano: int) -> None:
    assert rating.cost_nano_usd(tokens, 0, 0, price(input_="0.0005")) == nano


@pytest.mark.parametrize("tokens", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (5, 6, 0)])
def test_counts_that_cannot_be_true_are_refused(tokens: tuple[int, int, int]) -> None:
    with pytest.raises(UsageRefused):
        rating.cost_nano_usd(*tokens, price("1", "1", "1"))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_our_own_failures_are_free_and_everything_else_is_not(outcome: Outcome) -> None:
    record = usage_record(outcome=outcome, input_tokens=10, cached_tokens=0, output_tokens=10)
    free = outcome in {Outcome.ENGINE_FAILED, Outcome.STALLED, Outcome.SHUTDOWN}
    assert rating.rerate(record, price("1", "1", "1")) == (0 if free else 20_000)


@given(st.data())
def test_one_rounding_of_the_exact_sum(data: st.DataObject) -> None:
    counts, prices = st.integers(0, 2**31 - 1), st.integers(0, 10**12)
    input_tokens = data.draw(counts)
    cached_tokens = data.draw(st.integers(0, input_tokens))
    output_tokens = data.draw(counts)
    version = PriceVersion(
        1, "m", data.draw(prices), data.draw(prices), data.draw(prices), datetime(2026, 1, 1, tzinfo=UTC)
    )
    exact = (
        Fraction(input_tokens - cached_tokens) * version.input_pico_usd
        + Fraction(cached_tokens) * version.cached_input_pico_usd
        + Fraction(output_tokens) * version.output_pico_usd
    ) / 1000
    assert rating.cost_nano_usd(input_tokens, cached_tokens, output_tokens, version) == round(exact)
