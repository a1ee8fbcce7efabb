"""Money in integers: pico-dollars per token, nano-dollars in balances, dollars only as text for people."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

PICO_PER_NANO = 1_000
NANO_PER_USD = 1_000_000_000
TOKENS_PER_PRICE = 1_000_000
"""Price lists speak of a million tokens, as every vendor's page does."""


def usd_per_million_to_pico(text: str) -> int:
    """Turn a price such as "0.15" (US dollars per 1M tokens) into pico-dollars per token.

    One dollar per million tokens is one micro-dollar, so 1,000,000 pico-dollars, per token.
    Raises ValueError for a negative price, for text that is no decimal number, and for a price finer
    than a pico-dollar: a price is refused, never rounded.
    """
    try:
        usd = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal number such as 0.15") from None
    if not usd.is_finite() or usd < 0:
        raise ValueError(f"{text!r} is not a price: it must be 0 or more")
    pico = usd * 1_000_000
    if pico != pico.to_integral_value():
        raise ValueError(f"{text!r} is finer than a pico-dollar per token: at most 6 decimals")
    return int(pico)


def divide_half_even(amount: int, divisor: int) -> int:
    """Divide and round once, half to even; `divisor` is positive and even."""
    quotient, rest = divmod(amount, divisor)
    half = divisor // 2
    if rest > half or (rest == half and quotient % 2):
        quotient += 1
    return quotient


def pico_to_nano(pico_usd: int) -> int:
    """Round pico-dollars to nano-dollars, half to even: the one rounding an event's cost goes through."""
    return divide_half_even(pico_usd, PICO_PER_NANO)


def usd_to_nano(text: str) -> int:
    """Turn dollars such as "12.50" into nano-dollars.

    Raises ValueError for what is no decimal number, is negative, or is finer than a nano-dollar: an amount
    is refused, never rounded.
    """
    try:
        usd = Decimal(text.removeprefix("$").replace(",", ""))
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount such as 12.50") from None
    if not usd.is_finite() or usd < 0:
        raise ValueError(f"{text!r} is not an amount: it must be 0 or more")
    nano = usd * NANO_PER_USD
    if nano != nano.to_integral_value():
        raise ValueError(f"{text!r} is finer than a nano-dollar: at most 9 decimals")
    return int(nano)


def nano_to_usd(nano_usd: int) -> str:
    """Write nano-dollars as exact dollars with nine decimals: 1234 becomes "0.000001234"."""
    sign = "-" if nano_usd < 0 else ""
    whole, fraction = divmod(abs(nano_usd), NANO_PER_USD)
    return f"{sign}{whole}.{fraction:09d}"
