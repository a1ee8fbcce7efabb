"""What units cost, and that all parts of a cost sum to it."""

from __future__ import annotations

from datetime import UTC, datetime

from penstock_billing import rating, unit_costs
from penstock_billing.prices import PriceVersion
from penstock_billing.unit_costs import REMAINDER
from penstock_billing.usage import UsageLine

PRICE = PriceVersion(
    7,
    "m",
    input_pico_usd=150_333,
    cached_input_pico_usd=75_111,
    output_pico_usd=600_777,
    valid_from=datetime(2026, 1, 1, tzinfo=UTC),
    audio_second_pico_usd=100_000,
    image_pico_usd=5_000_000,
)


def line(cost: int, **counts: int) -> UsageLine:
    counted = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, **counts}
    return UsageLine(
        at=None,
        model=None,
        project_id=None,
        key_id=None,
        endpoint=None,
        price_version=7,
        requests=1,
        failed_requests=0,
        reasoning_tokens=0,
        cost_nano_usd=cost,
        **counted,
    )


def split(lines: list[UsageLine], price: PriceVersion | None = PRICE) -> dict[str, tuple[int, int]]:
    return {each.unit: (each.count, each.cost_nano_usd) for each in unit_costs.split(lines, lambda _: price)}


def test_cached_input_is_not_counted_as_input_again() -> None:
    cost = rating.cost_nano_usd(PRICE, input_tokens=1000, cached_tokens=400)
    found = split([line(cost, input_tokens=1000, cached_tokens=400)])
    assert found["input"] == (600, 90_200)
    assert found["cached_input"] == (400, 30_044)
    assert "output" not in found


def test_every_unit_is_priced_and_all_parts_sum_to_the_cost() -> None:
    counts = {"input_tokens": 7, "output_tokens": 3, "images": 2, "audio_ms": 1_500}
    cost = rating.cost_nano_usd(PRICE, **counts)
    found = split([line(cost, **counts) for _ in range(1000)])
    assert found["audio_minute"] == (1_500_000, 150_000)
    assert found["image"] == (2000, 10_000_000)
    assert sum(cost for _, cost in found.values()) == 1000 * cost
    # Each request was rounded by itself.
    assert found[REMAINDER][1] != 0


def test_a_price_that_is_not_known_leaves_its_cost_to_the_remainder() -> None:
    assert split([line(55, input_tokens=9)], None) == {"input": (9, 0), REMAINDER: (0, 55)}


def test_where_nothing_was_used_there_are_no_units() -> None:
    assert split([]) == {}
