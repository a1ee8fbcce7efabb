"""`penstock usage`: tokens and cost by day and model."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys
from penstock.cli import database
from penstock.settings import Settings
from penstock_base import money
from penstock_billing import usage
from penstock_billing.usage import UsageRow

DAY = click.DateTime(["%Y-%m-%d"])
DAYS_DEFAULT = 30


@click.command()
@click.option("--organisation", default="default", show_default=True)
@click.option("--since", type=DAY, help="First day (UTC); by default 30 days ago.")
@click.option("--until", type=DAY, help="Last day (UTC), included; by default today.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def command(organisation: str, since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Show tokens and cost by day and model."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = until.replace(tzinfo=UTC) if until else today
    first = since.replace(tzinfo=UTC) if since else last - timedelta(days=DAYS_DEFAULT - 1)
    if first > last:
        click.echo(f"penstock usage: --since {first:%Y-%m-%d} is after {last:%Y-%m-%d}", err=True)
        sys.exit(2)

    async def work(_: Settings, connection: asyncpg.Connection) -> list[UsageRow]:
        organisation_id = await keys.find_organisation(connection, organisation)
        return await usage.by_day_and_model(connection, organisation_id, first, last + timedelta(days=1))

    rows = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(rows))
    else:
        Console().print(_table(rows, f"Usage of {organisation}, {first:%Y-%m-%d} to {last:%Y-%m-%d} (UTC)"))


def _table(rows: list[UsageRow], title: str) -> Table:
    table = Table(title=title, show_footer=bool(rows))
    total_nano_usd = sum(row.cost_nano_usd for row in rows)
    table.add_column("Day", footer="Total", no_wrap=True)
    table.add_column("Model", overflow="fold")
    for heading, total in (
        ("Requests", sum(row.requests for row in rows)),
        ("Input", sum(row.input_tokens for row in rows)),
        ("Cached", sum(row.cached_tokens for row in rows)),
        ("Output", sum(row.output_tokens for row in rows)),
    ):
        table.add_column(heading, justify="right", footer=f"{total:,}", no_wrap=True)
    cost = money.nano_to_usd(total_nano_usd)
    # Money is never cut short: on a narrow screen the model's name folds instead.
    table.add_column("Cost, USD", justify="right", footer=cost, no_wrap=True)
    for row in rows:
        counts = (row.requests, row.input_tokens, row.cached_tokens, row.output_tokens)
        cost = money.nano_to_usd(row.cost_nano_usd)
        table.add_row(f"{row.day}", row.model, *(f"{count:,}" for count in counts), cost)
    if not rows:
        table.caption = "Nothing was used yet: send a request, and it appears here within a second."
    return table
