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


def cost(price: PriceVersion, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    return rating.cost_nano_usd(
        price, input_tokens=input_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens
    )


def test_a_request_costs_its_tokens_times_the_prices_per_million() -> None:
    assert cost(price(input_="0.15"), 1_000_000, 0, 0) == 150_000_000
    assert cost(price("0.15", cached="0.075"), 1_000_000, 1_000_000, 0) == 75_000_000
    assert cost(price("0.15", "0.075", "0.60"), 300, 200, 50) == 15_000 + 15_000 + 30_000


def test_cached_tokens_are_a_part_of_the_input_and_not_charged_twice() -> None:
    assert cost(price(input_="1", cached="0"), 10, 10, 0) == 0


def test_a_price_below_a_nano_dollar_per_token_is_kept_exactly() -> None:
    # 18.75 nano-dollars per token: rounding the price itself would overcharge by 1.33 %.
    assert cost(price(cached="0.01875"), 4, 4, 0) == 75
    assert cost(price(cached="0.01875"), 1_000_000, 1_000_000, 0) == 18_750_000


@pytest.mark.parametrize(("tokens", "nano"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_goes_to_the_even_one(tokens: int, nano: int) -> None:
    assert cost(price(input_="0.0005"), tokens, 0, 0) == nano


@pytest.mark.parametrize("tokens", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (5, 6, 0)])
def test_counts_that_cannot_be_true_are_refused(tokens: tuple[int, int, int]) -> None:
    with pytest.raises(UsageRefused):
        cost(price("1", "1", "1"), *tokens)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_our_own_failures_are_free_and_everything_else_is_not(outcome: Outcome) -> None:
    record = usage_record(outcome=outcome, input_tokens=10, cached_tokens=0, output_tokens=10)
    free = outcome in {Outcome.ENGINE_FAILED, Outcome.STALLED, Outcome.SHUTDOWN}
    assert rating.rerate(record, price("1", "1", "1")) == (0 if free else 20_000)


@pytest.mark.parametrize("field", ["images", "audio_ms", "documents"])
def test_a_negative_count_of_anything_is_refused(field: str) -> None:
    with pytest.raises(UsageRefused, match=field):
        rating.cost_nano_usd(price(), **{field: -1})


@given(st.data())
def test_one_rounding_of_the_exact_sum(data: st.DataObject) -> None:
    counts, prices = st.integers(0, 2**31 - 1), st.integers(0, 10**12)
    used = {
        name: data.draw(counts)
        for name in ("input_tokens", "output_tokens", "images", "audio_ms", "documents")
    }
    used["cached_tokens"] = data.draw(st.integers(0, used["input_tokens"]))
    batch = data.draw(st.booleans())
    version = PriceVersion(
        id=1,
        model="m",
        input_pico_usd=data.draw(prices),
        cached_input_pico_usd=data.draw(prices),
        output_pico_usd=data.draw(prices),
        valid_from=datetime(2026, 1, 1, tzinfo=UTC),
        image_pico_usd=data.draw(prices),
        audio_second_pico_usd=data.draw(prices),
        document_pico_usd=data.draw(prices),
        batch_discount_ppm=data.draw(st.integers(0, 1_000_000)),
    )
    exact = (
        Fraction(used["input_tokens"] - used["cached_tokens"]) * version.input_pico_usd
        + Fraction(used["cached_tokens"]) * version.cached_input_pico_usd
        + Fraction(used["output_tokens"]) * version.output_pico_usd
        + Fraction(used["images"]) * version.image_pico_usd
        + Fraction(used["documents"]) * version.document_pico_usd
        + Fraction(used["audio_ms"], 1000) * version.audio_second_pico_usd
    ) / 1000
    if batch:
        exact *= 1 - Fraction(version.batch_discount_ppm, 1_000_000)
    assert rating.cost_nano_usd(version, **used, batch=batch) == round(exact)
