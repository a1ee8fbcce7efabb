"""What is sold, and how people write its price: dollars as text on one side, exact integers on the other.

A price that the integers cannot hold is refused, never rounded.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from penstock_billing.prices import PriceVersion

PICO_PER_USD = 1_000_000_000_000
NANO_PER_USD = 1_000_000_000
PPM_PER_PERCENT = 10_000
PPM = 1_000_000
USD_MAX = 1_000_000
"""Nothing costs more, whatever it is told per: beyond it somebody mistook the unit."""
DECIMALS_MAX = 12
_USD = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?")
_PERCENT = re.compile(r"([0-9]{1,3}(\.[0-9]{1,12})?) ?%")


class Unit(NamedTuple):
    """One thing that is counted and priced."""

    name: str
    """In files, options and answers."""
    field: str
    """Of PriceVersion, in pico-dollars for one of what is counted."""
    label: str
    per: str
    """What a price in dollars is told for."""
    per_count: int
    """How many of what is counted that is."""


UNITS = (
    Unit("input", "input_pico_usd", "Input", "1M tokens", 1_000_000),
    Unit("cached_input", "cached_input_pico_usd", "Cached input", "1M tokens", 1_000_000),
    Unit("output", "output_pico_usd", "Output", "1M tokens", 1_000_000),
    Unit("image", "image_pico_usd", "Image", "image", 1),
    Unit("audio_minute", "audio_second_pico_usd", "Audio", "minute of audio", 60),
    Unit("document", "document_pico_usd", "Document", "document", 1),
)
TOKENS = UNITS[:3]
"""What every model has a price for."""
BY_NAME = {unit.name: unit for unit in UNITS}


def pico_usd(unit: Unit, text: str) -> int:
    """Turn a price such as "0.15" (US dollars for what the unit says) into pico-dollars for one of it.

    Raises ValueError, saying what would be accepted.
    """
    usd = _usd(text, unit.per)
    pico, rest = divmod(usd * PICO_PER_USD, unit.per_count)
    if rest:
        near = ", ".join(usd_text(unit, int(pico) + step) for step in (0, 1))
        raise ValueError(
            f"{text} dollars per {unit.per} is finer than can be charged; the nearest that can are {near}"
            if unit.per_count != TOKENS[0].per_count
            else f"{text} dollars per {unit.per} is finer than a pico-dollar per token: at most 6 decimals"
        )
    return int(pico)


def usd_text(unit: Unit, pico: int) -> str:
    """Write a price as exact dollars for what the unit says: 150000 per token is "0.15" per 1M tokens."""
    return _dollars(pico * unit.per_count, DECIMALS_MAX)


def femto_usd_text(femto: int, paid_ppm: int = PPM) -> str:
    """Write femto-dollars (1e-15), in which every charge is whole before it is rounded, as exact dollars.

    To nano-dollars at least, as costs are shown; of what is discounted `paid_ppm` millionths are paid.
    """
    whole, _, fraction = _dollars(femto * paid_ppm, 21).partition(".")
    return f"{whole}.{fraction.ljust(9, '0')}"


def nano_usd_per_minute(text: str, *, minutes: int = 1) -> int:
    """Turn a price per minute, or per so many minutes, into nano-dollars per minute; raises ValueError."""
    per = {1: "minute", 60: "hour"}.get(minutes, f"{minutes} minutes")
    nano, rest = divmod(_usd(text, per) * NANO_PER_USD, minutes)
    if rest:
        near = ", ".join(_dollars((int(nano) + step) * minutes, 9) for step in (0, 1))
        raise ValueError(
            f"{text} dollars per {per} is finer than a nano-dollar per minute; the nearest that can be "
            f"charged are {near}"
        )
    return int(nano)


def usd_per_minute_text(nano_usd: int) -> str:
    """Write nano-dollars per minute as exact dollars: 20000000 is "0.02"."""
    return _dollars(nano_usd, 9)


def discount_ppm(text: str) -> int:
    """Turn a discount such as "50%" into millionths; raises ValueError."""
    matched = _PERCENT.fullmatch(text.strip())
    ppm = Decimal(matched[1]) * PPM_PER_PERCENT if matched else None
    if ppm is None or ppm > 100 * PPM_PER_PERCENT or ppm % 1:
        raise ValueError(f'{text[:40]!r} is not a discount from "0%" to "100%", with at most 4 decimals')
    return int(ppm)


def discount_text(ppm: int) -> str:
    """Write millionths as a percentage: 500000 is "50%"."""
    return f"{Decimal(ppm) / PPM_PER_PERCENT:f}%" if ppm % PPM_PER_PERCENT else f"{ppm // PPM_PER_PERCENT}%"


def percent_change(before: int, after: int) -> str:
    """Say how much an amount changed: "+10.0 %"; "new" where there was nothing, "" where nothing changes."""
    if before == after:
        return ""
    if before == 0:
        return "new"
    return f"{Decimal(after - before) * 100 / before:+,.1f} %"


def token_prices(version: PriceVersion) -> dict[str, str]:
    """The prices of tokens in dollars per 1M, by name."""
    return {unit.name: usd_text(unit, getattr(version, unit.field)) for unit in TOKENS}


def priced(version: PriceVersion) -> dict[str, str]:
    """Every price of a version in dollars, by name: tokens always, other units where they cost something."""
    return {
        unit.name: usd_text(unit, getattr(version, unit.field))
        for unit in UNITS
        if unit in TOKENS or getattr(version, unit.field)
    }


def _usd(text: str, per: str) -> Decimal:
    if not _USD.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a price such as 0.15: dollars per {per}, 0 or more, no sign")
    usd = Decimal(text)
    if usd > USD_MAX:
        raise ValueError(f"{text} dollars per {per} is more than the {USD_MAX:,} that is accepted")
    if usd * PICO_PER_USD % 1:
        raise ValueError(f"{text} is finer than can be charged: at most {DECIMALS_MAX} decimals")
    return usd


def _dollars(amount: int, decimals: int) -> str:
    """Exact dollars with at least two decimals."""
    whole, fraction = divmod(amount, 10**decimals)
    return f"{whole}.{f'{fraction:0{decimals}d}'.rstrip('0').ljust(2, '0')}"
