"""Amounts of money on the command line: read exactly, shown to the last digit, never cut short."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from penstock_base import ids, money


class Usd(click.ParamType[int]):
    """US dollars such as 12.50, read as integer nano-dollars; more than 0 unless `zero` is allowed."""

    name = "usd"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text, or fail with what would be accepted."""
        if isinstance(value, int):
            return value
        try:
            nano_usd = money.usd_to_nano(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if nano_usd == 0 and not self._zero:
            self.fail("0 moves nothing: write an amount such as 12.50", param, ctx)
        if nano_usd >= 2**62:
            self.fail("that is more than a ledger account can hold", param, ctx)
        return nano_usd


REFERENCE = click.option(
    "--reference",
    help="Why, once: asking again under it changes nothing. By default a new one, which is printed.",
)


def reference(given: str | None, kind: str) -> str:
    """The reference that was given, or a new one that is named for what it does."""
    return given or f"{kind}:{ids.random_text(12)}"


def usd(nano_usd: int, *, sign: bool = False) -> Text:
    """An amount as a table shows it: exact, grouped, minus red."""
    return Text(grouped(nano_usd, sign=sign), style="red" if nano_usd < 0 else "")


def grouped(nano_usd: int, *, sign: bool = False) -> str:
    """Exact dollars with thousands set apart: 1,234.500000000."""
    text = money.nano_to_usd(abs(nano_usd))
    whole, _, fraction = text.partition(".")
    mark = "-" if nano_usd < 0 else "+" if sign and nano_usd else ""
    return f"{mark}{int(whole):,}.{fraction}"


def add_money(table: Table, heading: str, footer: str = "") -> None:
    """Add a column that is never wrapped or cut: on a narrow screen the words beside it fold."""
    table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading), footer=footer)
