"""From tokens and a price version to money: exact integers, one rounding, no clock, no database."""

from __future__ import annotations

from penstock_base import money
from penstock_billing.errors import UsageRefused
from penstock_billing.prices import PriceVersion
from penstock_billing.record import UsageRecord


def cost_nano_usd(input_tokens: int, cached_tokens: int, output_tokens: int, price: PriceVersion) -> int:
    """Price one request in nano-dollars: exact in pico-dollars, then rounded once, half to even.

    `cached_tokens` is a part of `input_tokens`. Raises UsageRefused for a negative count and for more
    cached than input tokens.
    """
    if input_tokens < 0 or cached_tokens < 0 or output_tokens < 0:
        raise UsageRefused(
            "token counts must be 0 or more, not "
            f"input {input_tokens}, cached {cached_tokens}, output {output_tokens}"
        )
    if cached_tokens > input_tokens:
        raise UsageRefused(f"cached_tokens {cached_tokens} must be a part of input_tokens {input_tokens}")
    return money.pico_to_nano(
        (input_tokens - cached_tokens) * price.input_pico_usd
        + cached_tokens * price.cached_input_pico_usd
        + output_tokens * price.output_pico_usd
    )


def rerate(record: UsageRecord, price: PriceVersion) -> int:
    """Say in nano-dollars what a recorded request costs under a price version; our own failures cost 0.

    With the record's own version this is the stored cost (DESIGN.md, invariant 6).
    """
    if not record.outcome.billable:
        return 0
    return cost_nano_usd(record.input_tokens, record.cached_tokens, record.output_tokens, price)
