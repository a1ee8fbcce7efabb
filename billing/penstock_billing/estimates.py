"""What a month would cost, in the integers that requests are charged in."""

from __future__ import annotations

from typing import Annotated

import msgspec

from penstock_billing import rating
from penstock_billing.prices import PriceVersion

DAYS_PER_MONTH = 30
"""As people reckon; a bill has the days that there were."""
TOKENS_MAX = 10_000_000
REQUESTS_MAX = 1_000_000_000
Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
Requests = Annotated[int, msgspec.Meta(ge=0, le=REQUESTS_MAX)]


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that are all alike."""

    requests_per_day: Requests = 10_000
    input_tokens: Tokens = 1_000
    """Of each request."""
    cached_tokens: Tokens = 0
    """The part of the input that the prefix cache has."""
    output_tokens: Tokens = 300


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What such traffic costs, in nano-dollars."""

    request_nano_usd: int
    day_nano_usd: int
    month_nano_usd: int


def estimate(price: PriceVersion, traffic: Traffic) -> Estimate:
    """Price traffic as it would be charged: each request is rounded once, half to even, then they are summed.

    Raises UsageRefused where more tokens are cached than there are.
    """
    request = rating.cost_nano_usd(
        price,
        input_tokens=traffic.input_tokens,
        cached_tokens=traffic.cached_tokens,
        output_tokens=traffic.output_tokens,
    )
    day = request * traffic.requests_per_day
    return Estimate(request_nano_usd=request, day_nano_usd=day, month_nano_usd=day * DAYS_PER_MONTH)
