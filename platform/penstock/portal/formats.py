"""How pages write numbers, money and times: exact where it is money, short where it is speed or size."""

from __future__ import annotations

from datetime import UTC, datetime

from markupsafe import Markup

from penstock_base import money

CENTS = 2
SIZES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def usd(nano_usd: int) -> str:
    """Nano-dollars as dollars, exact: at least cents, and every further digit that is not zero."""
    sign, text = (
        ("\N{MINUS SIGN}", money.nano_to_usd(-nano_usd))
        if nano_usd < 0
        else ("", money.nano_to_usd(nano_usd))
    )
    whole, fraction = text.split(".")
    return f"{sign}${int(whole):,}.{fraction.rstrip('0').ljust(CENTS, '0')}"


def per_million(pico_usd: int) -> str:
    """A price per token as people compare them: exact dollars per million tokens."""
    whole, fraction = divmod(pico_usd, 1_000_000)
    return f"${whole:,}.{f'{fraction:06d}'.rstrip('0').ljust(CENTS, '0')}"


def count(number: int) -> str:
    """A whole number with its thousands told apart."""
    return f"{number:,}"


def short(number: float) -> str:
    """A large number in a few characters: 131072 is 131k, 7620000000 is 7.6B."""
    for size, letter in SIZES:
        if number >= size:
            value = number / size
            return f"{value:.0f}{letter}" if value >= 100 else f"{value:.1f}".removesuffix(".0") + letter
    return f"{number:g}"


def duration(microseconds: float) -> str:
    """A duration in the unit that suits it."""
    if microseconds < 1_000:
        return f"{microseconds:.0f} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1_000:.3g} ms" if microseconds < 999_500 else "1 s"
    seconds = microseconds / 1_000_000
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min"


def when(moment: datetime) -> Markup:
    """A moment in UTC, for people and programs; the page's script may add how long ago that was."""
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        utc.isoformat(), utc.strftime("%Y-%m-%d %H:%M:%S")
    )


FILTERS = {
    "usd": usd,
    "per_million": per_million,
    "count": count,
    "short": short,
    "duration": duration,
    "when": when,
}
