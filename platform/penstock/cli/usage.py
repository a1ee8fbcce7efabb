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
from penstock.edge import usage_questions
from penstock.edge.refusals import BadRequest
from penstock.settings import Settings
from penstock_base import money
from penstock_billing import usage
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
Told = tuple[Question, list[UsageLine], Freshness]


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
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def command(organisation: str, as_json: bool, **asked: str | None) -> None:
    """Show tokens and cost, by day and model or as --by says."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Told:
        organisation_id = await keys.find_organisation(connection, organisation)
        question = usage_questions.read(organisation_id, usage_questions.Asked(**asked), datetime.now(UTC))
        lines = await usage.read(connection, question)
        return question, lines, await usage.freshness(connection, organisation_id)

    try:
        question, lines, fresh = database.run(work)
    except BadRequest as error:
        click.echo(f"penstock usage: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(msgspec.json.encode([usage.parts(question, line) | usage.sums(line) for line in lines]))
    else:
        first, last = usage_questions.bounds(question)
        Console().print(_table(question, lines, fresh, f"Usage of {organisation}, {first} to {last} (UTC)"))


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
