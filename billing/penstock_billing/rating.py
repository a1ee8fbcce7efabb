"""From what was used and a price version to money: exact integers, one rounding, no clock, no database."""

from __future__ import annotations

from penstock_base import money
from penstock_billing.errors import UsageRefused
from penstock_billing.prices import PriceVersion
from penstock_billing.record import UsageRecord

MS_PER_SECOND = 1_000
PPM = 1_000_000
"""A discount is told in millionths."""


def cost_nano_usd(
    price: PriceVersion,
    *,
    input_tokens: int = 0,
    cached_tokens: int = 0,
    output_tokens: int = 0,
    images: int = 0,
    audio_ms: int = 0,
    documents: int = 0,
    batch: bool = False,
) -> int:
    """Price one request in nano-dollars: exact in pico-dollars, then rounded once, half to even.

    `cached_tokens` is a part of `input_tokens`. Raises UsageRefused for a negative count and for more
    cached than input tokens. `billing.cost_nano_usd` in the database says the same.
    """
    if min(input_tokens, cached_tokens, output_tokens, images, audio_ms, documents) < 0:
        raise UsageRefused(
            f"counts must be 0 or more, not input {input_tokens}, cached {cached_tokens}, output "
            f"{output_tokens}, images {images}, audio_ms {audio_ms}, documents {documents}"
        )
    if cached_tokens > input_tokens:
        raise UsageRefused(f"cached_tokens {cached_tokens} must be a part of input_tokens {input_tokens}")
    pico = (
        (input_tokens - cached_tokens) * price.input_pico_usd
        + cached_tokens * price.cached_input_pico_usd
        + output_tokens * price.output_pico_usd
        + images * price.image_pico_usd
        + documents * price.document_pico_usd
    )
    if not audio_ms and not batch:
        return money.pico_to_nano(pico)
    paid_ppm = PPM - (price.batch_discount_ppm if batch else 0)
    exact = (pico * MS_PER_SECOND + audio_ms * price.audio_second_pico_usd) * paid_ppm
    return money.divide_half_even(exact, money.PICO_PER_NANO * MS_PER_SECOND * PPM)


def rerate(record: UsageRecord, price: PriceVersion) -> int:
    """Say in nano-dollars what a recorded request costs under a price version; our own failures cost 0.

    With the record's own version this is the stored cost (DESIGN.md, invariant 6).
    """
    if not record.outcome.billable:
        return 0
    return cost_nano_usd(
        price,
        input_tokens=record.input_tokens,
        cached_tokens=record.cached_tokens,
        output_tokens=record.output_tokens,
        images=record.images,
        audio_ms=record.audio_ms,
        documents=record.documents,
        batch=record.batch,
    )
