"""What a benchmark hands back, and how it is shown."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table


class Unmeasurable(Exception):
    """A figure could not be taken; the message says why and what to do."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure, and the bar it has to meet where there is one."""

    name: str
    """`<benchmark>.<what was measured>.<figure>`."""
    figure: float | None
    """None: skipped, and `note` says why."""
    unit: str
    bar: float | None = None
    at_least: bool = False
    """The bar is a floor; otherwise a ceiling."""
    note: str = ""
    """How it was taken, or why it was not."""

    @property
    def holds(self) -> bool | None:
        """Whether the bar is met; None without a bar or a figure."""
        if self.bar is None or self.figure is None:
            return None
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar

    def as_object(self) -> dict[str, Any]:
        """The figure for `--json`; a skipped one says why in `note`."""
        listed = {
            "name": self.name,
            "figure": self.figure,
            "unit": self.unit,
            "bar": self.bar,
            "holds": self.holds,
        }
        return listed if self.figure is not None else listed | {"note": self.note}


def as_json(figures: list[Figure]) -> str:
    """All figures as a list of objects."""
    return msgspec.json.format(
        msgspec.json.encode([figure.as_object() for figure in figures]), indent=2
    ).decode()


def show(figures: list[Figure], console: Console) -> None:
    """Print all figures as a table."""
    table = Table("what", "figure", "unit", "bar", "holds", "how")
    for column in (1, 3):
        table.columns[column].justify = "right"
    for column in range(5):
        table.columns[column].no_wrap = True
    for one in figures:
        holds = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[one.holds]
        bar = "" if one.bar is None else f"{'≥' if one.at_least else '≤'} {one.bar:g}"
        table.add_row(
            one.name,
            "skipped" if one.figure is None else f"{one.figure:,.4g}",
            one.unit,
            bar,
            holds,
            one.note,
        )
    console.print(table)
