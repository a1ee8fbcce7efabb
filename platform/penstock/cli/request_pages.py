"""How requests look on a screen of 80 columns and more."""

from __future__ import annotations

from datetime import UTC, date

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.cli import amounts
from penstock.edge.api import request_stages
from penstock.edge.api.request_stages import Stage
from penstock_base import money
from penstock_billing import price_units
from penstock_billing.prices import PriceVersion
from penstock_billing.requests import RecordedRequest, Wanted

WIDE = 140
"""Columns of a screen that has room for more than must be said."""
BAR_CHARACTERS = 16
"""A bar's length for the whole time of a request."""


def listed(
    console: Console,
    organisation: str,
    wanted: Wanted,
    found: list[RecordedRequest],
    filed: list[date],
    after: str | None,
) -> None:
    """One line per request, the latest first."""
    table = Table(title=f"Requests of {organisation}, latest first", collapse_padding=True, pad_edge=False)
    wide = console.width >= WIDE
    table.add_column("Ended (UTC)", no_wrap=True)
    # Never folded: people copy it.
    table.add_column("Request", no_wrap=True)
    if wide:
        table.add_column("Model", overflow="fold")
    table.add_column("Outcome", overflow="fold")
    if wide:
        for heading in ("Waited", "Took", "In", "Out"):
            table.add_column(heading, justify="right", no_wrap=True)
    amounts.add_money(table, "Cost, USD")
    for one in found:
        figures = [
            duration(one.queue_us),
            duration(one.duration_us),
            f"{one.input_tokens:,}",
            f"{one.output_tokens:,}",
        ]
        table.add_row(
            f"{one.ended_at.astimezone(UTC):%m-%d %H:%M:%S}",
            one.request_id,
            *([one.model] if wide else []),
            one.outcome.value.replace("_", " "),
            *(figures if wide else []),
            amounts.usd(one.cost_nano_usd),
        )
    console.print(table)
    if not found:
        window = f"{wanted.since:%Y-%m-%d %H:%M} to {wanted.until:%Y-%m-%d %H:%M} UTC"
        console.print(Text(f"None is like that from {window}; --since and --until ask for another time."))
    if filed:
        days = ", ".join(f"{day}" for day in filed)
        console.print(Text(f"Requests of {days} are in archive files only and are not listed here."))
    if after is not None:
        console.print(Text(f"More: --after {after}"))
    if found:
        console.print(Text("Explain one: penstock requests show REQUEST", style="dim"))


def explained(console: Console, one: RecordedRequest, price: PriceVersion | None, refunds: list[int]) -> None:
    """One request whole: what it was, where its time went, what it cost."""
    console.print(Text(f"Request {one.request_id}", style="bold"))
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    rows = {
        "client's id": one.client_request_id or "",
        "model": one.model,
        "endpoint": one.endpoint,
        "key": one.key_id,
        "outcome": f"{one.outcome.value.replace('_', ' ')}, status {one.status}",
        "": request_stages.MEANINGS[one.outcome],
    }
    for name, value in rows.items():
        if value:
            head.add_row(name, Text(value))
    console.print(head)
    console.print(_timeline(one))
    if one.outcome.billable:
        console.print(_costs(one, price))
    if one.ledger_transaction_id is not None:
        number = one.ledger_transaction_id
        booked = f"Booked in ledger transaction {number}, {one.funding.value}: penstock ledger show {number}"
    else:
        booked = "It costs nothing, so nothing was booked."
    console.print(Text(booked))
    if refunds:
        numbers = ", ".join(f"{number}" for number in refunds)
        console.print(Text(f"Given back by ledger transaction {numbers}."))


def duration(us: int) -> str:
    """A time as people read it: microseconds below a millisecond, then milliseconds, then seconds."""
    if us < 1_000:
        return f"{us} µs"
    return f"{us / 1000:,.1f} ms" if us < 1_000_000 else f"{us / 1_000_000:,.2f} s"


def _timeline(one: RecordedRequest) -> Table:
    stages = request_stages.stages(one)
    table = Table(title=f"Its time, from {one.arrived_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    table.add_column("After", justify="right", no_wrap=True)
    table.add_column("Stage", no_wrap=True)
    table.add_column("Took", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=BAR_CHARACTERS, style="cyan")
    table.add_column("What happened", overflow="fold")
    for stage in stages:
        took = duration(stage.took_us) if stage.took_us else ""
        table.add_row(
            duration(stage.after_us), stage.stage, took, _bar(stage, one.duration_us), Text(stage.note)
        )
    return table


def _bar(stage: Stage, whole_us: int) -> str:
    """Where in the whole a stage lies; a thin mark for what took less than a character's time."""
    if not stage.took_us or whole_us <= 0:
        return ""
    begin = min(stage.after_us * BAR_CHARACTERS // whole_us, BAR_CHARACTERS - 1)
    if stage.took_us * BAR_CHARACTERS < whole_us:
        return " " * begin + "▏"
    end = min((stage.after_us + stage.took_us) * BAR_CHARACTERS // whole_us, BAR_CHARACTERS)
    return " " * begin + "█" * max(end - begin, 1)


def _costs(one: RecordedRequest, price: PriceVersion | None) -> Table:
    table = Table(title=f"Its cost, by price version {one.price_version}", show_footer=True)
    table.add_column("Unit", footer="Cost, rounded once", overflow="fold")
    table.add_column("Count", justify="right", no_wrap=True)
    table.add_column("Price, USD", justify="right", overflow="fold")
    table.add_column("USD", justify="right", no_wrap=True, footer=money.nano_to_usd(one.cost_nano_usd))
    for charge in request_stages.charges(one, price) if price is not None else []:
        unit = charge.unit.replace("_", " ")
        table.add_row(unit, f"{charge.count:,}", f"{charge.usd_per_unit} per {charge.per}", charge.usd)
    if one.batch and price is not None and price.batch_discount_ppm:
        table.add_row("batch discount", "", f"-{price_units.discount_text(price.batch_discount_ppm)}", "")
    return table
