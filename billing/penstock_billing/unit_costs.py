"""What each unit cost: input, cached and output tokens, images, sound, documents, by their price versions.

A request is priced as a whole and rounded once, so its units have no cost of their own to the last digit.
Here each is its count times its price; what discounts and rounding make of that is the remainder, and with
it all parts sum to what was charged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from penstock_base import money
from penstock_billing.price_units import UNITS, Unit
from penstock_billing.prices import PriceVersion
from penstock_billing.usage import UsageLine, UsageTotals

MS_PER_SECOND = 1_000


class UnitCost(msgspec.Struct):
    """A unit's part of a cost."""

    unit: str
    """As in `price_units.UNITS`; `remainder` for what discounts and rounding make of their sum."""
    count: int
    """Of what is counted: tokens, images, documents; milliseconds of sound."""
    cost_nano_usd: int


REMAINDER = "remainder"


def split(lines: Iterable[UsageLine], version: Callable[[int], PriceVersion | None]) -> list[UnitCost]:
    """Divide the cost of lines that are told apart by price version; units that nobody used are left out.

    A price version that is not known here leaves its whole cost to the remainder.
    """
    counts = dict.fromkeys((unit.name for unit in UNITS), 0)
    femto = dict.fromkeys(counts, 0)
    total = 0
    for line in lines:
        total += line.cost_nano_usd
        price = version(line.price_version) if line.price_version is not None else None
        for unit in UNITS:
            count = _count(line, unit)
            counts[unit.name] += count
            if price is not None:
                milli = 1 if unit.name == "audio_minute" else MS_PER_SECOND
                femto[unit.name] += count * getattr(price, unit.field) * milli
    per_nano = money.PICO_PER_NANO * MS_PER_SECOND
    found = [
        UnitCost(name, counts[name], money.divide_half_even(femto[name], per_nano))
        for name in counts
        if counts[name]
    ]
    left = total - sum(each.cost_nano_usd for each in found)
    return [*found, UnitCost(REMAINDER, 0, left)] if left else found


def _count(line: UsageTotals, unit: Unit) -> int:
    return {
        "input": line.input_tokens - line.cached_tokens,
        "cached_input": line.cached_tokens,
        "output": line.output_tokens,
        "image": line.images,
        "audio_minute": line.audio_ms,
        "document": line.documents,
    }[unit.name]
