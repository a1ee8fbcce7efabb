"""`penstock prices simulate`: what recorded usage would have cost under proposed prices."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import asyncpg
import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.access import keys
from penstock.cli import amounts, database, prices_pages
from penstock.cli.moments import Moment, shown
from penstock.settings import Settings
from penstock_base import money
from penstock_billing import price_backtest, price_proposals, price_units
from penstock_billing.price_backtest import Amounts, Backtest, MinuteAmounts, ModelAmounts
from penstock_billing.price_proposals import Proposal
from penstock_billing.prices import PriceBook
from penstock_catalog.errors import CardError
from penstock_catalog.shelf import BUILTIN, Shelf

DAYS_DEFAULT = 30


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "since", type=Moment(), help="Usage from this moment (UTC) on; else 30 days back.")
@click.option("--to", "until", type=Moment(), help="Usage before this moment (UTC); else until now.")
@click.option("--organisation", "organisations", multiple=True, help="Only this one; may be said again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def simulate(
    file: Path, since: datetime | None, until: datetime | None, organisations: tuple[str, ...], as_json: bool
) -> None:
    """Re-rate recorded usage under the prices in FILE; nothing is changed.

    Every request is priced again by itself, with its one rounding, so the figures are what would have been
    charged, to the nano-dollar. What FILE does not name keeps what was charged.

    \b
    name: Spring prices
    models:
      qwen/qwen3-8b:
        input: "0.20"
        cached_input: "0.02"
        output: "0.60"
        batch_discount: "50%"      # and image, audio_minute, document
    minutes:
      instance:
        gpu-80: "0.05"
    """
    end = datetime.now(UTC) if until is None else until
    begin = end - timedelta(days=DAYS_DEFAULT) if since is None else since
    if begin >= end:
        click.echo(f"penstock prices: --from ({shown(begin)}) is not before --to ({shown(end)})", err=True)
        sys.exit(2)

    async def work(
        told: Settings, connection: asyncpg.Connection
    ) -> tuple[Proposal, Backtest, dict[int, str]]:
        book = PriceBook()
        await book.load(connection)
        known = {card.id for card in Shelf.open([BUILTIN, *told.cards]).cards}
        proposal = price_proposals.read(file, known | {each.model for each in book.versions})
        only = [await keys.find_organisation(connection, name) for name in organisations] or None
        found = await price_backtest.simulate(connection, proposal, begin, end, only)
        seen = {row.organisation_id for row in found.rows}
        return proposal, found, (await keys.names(connection, seen, set()))[0]

    try:
        with Console(stderr=True).status("Pricing recorded requests again"):
            proposal, found, names = database.run(work)
    except CardError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    if found.archived_days:
        _warn(found)
    if as_json:
        click.echo(msgspec.json.encode(_fields(proposal, found, names)))
    else:
        console = Console()
        console.print(_table(proposal, found, names, wide=console.width >= prices_pages.WIDE))


def _table(proposal: Proposal, found: Backtest, names: dict[int, str], *, wide: bool) -> Table:
    table = Table(
        title=f"{proposal.name}: usage from {shown(found.since)} to {shown(found.until)} UTC",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        show_footer=True,
    )
    table.add_column("Organisation, model", footer="Total", overflow="fold", ratio=1, min_width=14)
    if wide:
        table.add_column("Used", justify="right", no_wrap=True)
    for heading, cell in zip(("Paid, USD", "Would pay", "Difference", "%"), _money(found.total), strict=True):
        table.add_column(heading, justify="right", no_wrap=True, footer=cell)
    rows = sorted(found.rows, key=lambda row: row.organisation_id)
    for organisation_id, group in groupby(rows, key=lambda row: row.organisation_id):
        mine = list(group)
        name = names.get(organisation_id, f"#{organisation_id}")
        used = [""] if wide else []
        table.add_row(Text(name, "bold"), *used, *_money(price_backtest.total(mine)), style="bold")
        for row in mine:
            style = "" if row.proposed else "dim"
            used = [_used(row)] if wide else []
            table.add_row(Text(f"  {_what(row)}"), *used, *_money(row), style=style)
    if not rows:
        table.caption = "Nothing was used then; choose other times with --from and --to."
    elif not all(row.proposed for row in rows):
        table.caption = "Dim: not in the file, so as charged."
    return table


def _money(row: Amounts) -> tuple[str | Text, ...]:
    rises = row.difference_nano_usd > 0
    percent = price_units.percent_change(row.paid_nano_usd, row.would_pay_nano_usd)
    return (
        amounts.grouped(row.paid_nano_usd),
        amounts.grouped(row.would_pay_nano_usd),
        amounts.grouped(row.difference_nano_usd, sign=True),
        Text(percent.removesuffix(" %"), "red" if rises else "green"),
    )


def _what(row: ModelAmounts | MinuteAmounts) -> str:
    return row.model if isinstance(row, ModelAmounts) else f"{row.kind} {row.subject}"


def _used(row: ModelAmounts | MinuteAmounts) -> str:
    return f"{row.requests:,}" if isinstance(row, ModelAmounts) else f"{row.minutes:,} min"


def _fields(proposal: Proposal, found: Backtest, names: dict[int, str]) -> dict[str, Any]:
    rows = [
        {"organisation": names.get(row.organisation_id, f"#{row.organisation_id}")}
        | msgspec.to_builtins(row)
        | _sums(row)
        for row in found.rows
    ]
    return {
        "name": proposal.name,
        "since": found.since,
        "until": found.until,
        "rows": rows,
        "total": _sums(found.total),
        "archived_days": found.archived_days,
    }


def _sums(row: Amounts) -> dict[str, Any]:
    return {
        "paid_nano_usd": row.paid_nano_usd,
        "paid_usd": money.nano_to_usd(row.paid_nano_usd),
        "would_pay_nano_usd": row.would_pay_nano_usd,
        "would_pay_usd": money.nano_to_usd(row.would_pay_nano_usd),
        "difference_nano_usd": row.difference_nano_usd,
        "difference_usd": money.nano_to_usd(row.difference_nano_usd),
        "change": price_units.percent_change(row.paid_nano_usd, row.would_pay_nano_usd),
    }


def _warn(found: Backtest) -> None:
    days = [f"{day}" for day in found.archived_days]
    told = ", ".join(days[:3]) + (f" and {len(days) - 3} more" if len(days) > 3 else "")
    click.echo(
        f"penstock prices: the requests of {told} are in archived files and are not counted; "
        "restore those days first, or choose other times",
        err=True,
    )
