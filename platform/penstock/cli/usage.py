"""`penstock usage`: tokens and cost, by day and model or however they are asked for."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys
from penstock.cli import database
from penstock.edge.api import usage_questions
from penstock.edge.api.usage_questions import Minutes
from penstock.edge.refusals import BadRequest
from penstock.settings import Settings
from penstock_base import money
from penstock_billing import minutes, usage
from penstock_billing.usage import Freshness, Question, UsageLine

HEADINGS = {
    "day": "Day",
    "hour": "Hour (UTC)",
    "minute": "Minute (UTC)",
    "model": "Model",
    "project_id": "Project",
    "key_id": "Key",
    "endpoint": "Endpoint",
}
Told = tuple[Question, list[UsageLine], list[Minutes], Freshness]


@click.command()
@click.option("--organisation", default="default", show_default=True)
@click.option("--since", help="First day (UTC), or a minute as 2026-11-21T10:00Z; by default 30 days ago.")
@click.option("--until", help="Last day (UTC), included, or the minute to stop at; by default today.")
@click.option(
    "--by",
    default="day,model",
    show_default=True,
    help=f"What to tell apart, by commas: {', '.join(usage_questions.WORDS)}.",
)
@click.option("--project", help="Only this project, by its number.")
@click.option("--key", help="Only this key, by its id.")
@click.option("--model", help="Only this model.")
@click.option("--endpoint", help='Only this endpoint; "" is what called a model by its name.')
@click.option("--minutes", "by_minutes", is_flag=True, help="Only minutes of endpoints that were charged.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def command(organisation: str, by_minutes: bool, as_json: bool, **asked: str | None) -> None:
    """Show tokens and cost, by day and model or as --by says, and the minutes of endpoints."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Told:
        organisation_id = await keys.find_organisation(connection, organisation)
        question = usage_questions.read(organisation_id, usage_questions.Asked(**asked), datetime.now(UTC))
        lines = await usage.read(connection, question)
        charged = await minutes.charged(connection, organisation_id, question.since, question.until)
        fresh = await usage.freshness(connection, organisation_id)
        return question, lines, usage_questions.minutes(question, charged), fresh

    try:
        question, lines, charged, fresh = database.run(work)
    except BadRequest as error:
        click.echo(f"penstock usage: {error}", err=True)
        sys.exit(2)
    if as_json:
        told = [usage.parts(question, line) | usage.sums(line) for line in lines]
        click.echo(msgspec.json.encode(charged if by_minutes else told))
    elif by_minutes:
        Console().print(_minutes(charged, f"Minutes of {organisation}"))
    else:
        first, last = usage_questions.bounds(question)
        console = Console()
        console.print(_table(question, lines, fresh, f"Usage of {organisation}, {first} to {last} (UTC)"))
        if charged:
            console.print(_minutes(charged, "Besides: minutes"))


def _table(question: Question, lines: list[UsageLine], fresh: Freshness, title: str) -> Table:
    table = Table(title=title, show_footer=bool(lines))
    named = [usage.parts(question, line) for line in lines]
    for number, part in enumerate(named[0] if named else {}):
        # Money is never cut short: on a narrow screen names fold instead.
        footer = "" if number else "Total"
        table.add_column(HEADINGS[part], footer=footer, overflow="fold", no_wrap=part == question.step.value)
    for heading, total in (
        ("Requests", sum(line.requests for line in lines)),
        ("Input", sum(line.input_tokens for line in lines)),
        ("Cached", sum(line.cached_tokens for line in lines)),
        ("Output", sum(line.output_tokens for line in lines)),
    ):
        table.add_column(heading, justify="right", footer=f"{total:,}", no_wrap=True)
    cost = money.nano_to_usd(sum(line.cost_nano_usd for line in lines))
    table.add_column("Cost, USD", justify="right", footer=cost, no_wrap=True)
    for parts, line in zip(named, lines, strict=True):
        counts = (line.requests, line.input_tokens, line.cached_tokens, line.output_tokens)
        shown = [
            f"{part:%Y-%m-%d %H:%M}" if isinstance(part, datetime) else f"{part}" for part in parts.values()
        ]
        table.add_row(*shown, *(f"{count:,}" for count in counts), money.nano_to_usd(line.cost_nano_usd))
    table.caption = f"As of {fresh.as_of:%Y-%m-%d %H:%M:%S} UTC."
    if not lines:
        table.caption = "Nothing was used then: send a request, and it appears here within a second."
    return table


def _minutes(charged: list[Minutes], title: str) -> Table:
    table = Table(title=title, show_footer=bool(charged))
    table.add_column("Of", overflow="fold", footer="Total")
    table.add_column("Model", overflow="fold")
    total = sum(each.minutes for each in charged)
    table.add_column("Minutes", justify="right", no_wrap=True, footer=f"{total:,}")
    table.add_column("USD a minute", justify="right", no_wrap=True)
    cost = money.nano_to_usd(sum(each.cost_nano_usd for each in charged))
    table.add_column("Cost, USD", justify="right", no_wrap=True, footer=cost)
    for each in charged:
        what = f"{each.priced_as} {each.kind} {each.endpoint}".strip()
        price, cost = money.nano_to_usd(each.nano_usd_per_minute), money.nano_to_usd(each.cost_nano_usd)
        table.add_row(what, each.model, f"{each.minutes:,}", price, cost)
    if not charged:
        table.caption = "None were charged then: minutes are charged some minutes after they passed."
    return table
