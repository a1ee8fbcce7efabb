"""`penstock requests`: single requests, and why each took and cost what it did."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import asyncpg
import click
import msgspec
from rich.console import Console

from penstock.access import keys
from penstock.cli import database, request_pages
from penstock.edge.api import request_lookup, request_questions, request_stages
from penstock.edge.api.request_lookup import Found
from penstock.edge.api.request_questions import Asked
from penstock.edge.refusals import BadRequest
from penstock.settings import Settings
from penstock_billing import requests
from penstock_billing.errors import UnknownRequest
from penstock_billing.record import Outcome
from penstock_billing.requests import RecordedRequest, Wanted

OF_ONE = click.option("--organisation", default="default", show_default=True)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group()
def command() -> None:
    """Look at single requests.

    A request is here a second after its answer ended; its id is in the answer's x-request-id.
    """


@command.command("list")
@OF_ONE
@click.option("--since", help="First day (UTC), or a minute as 2026-11-21T10:00Z; by default yesterday.")
@click.option("--until", help="Last day (UTC), included, or the minute to stop at; by default today.")
@click.option("--model", help="Only this model.")
@click.option("--key", help="Only this key, by its id.")
@click.option("--endpoint", help='Only this endpoint; "" is what called a model by its name.')
@click.option("--project", help="Only this project, by its number.")
@click.option("--outcome", help=f"Only these, by commas: {', '.join(Outcome)}.")
@click.option("--status", help="Only this HTTP status, as 503 or 5xx.")
@click.option("--longer-than", help="Only what took longer, as 500ms, 2s or 1m.")
@click.option(
    "--id", help="Only what we, or its client, called so; looked for in the last 30 days and the id's own."
)
@click.option("--within", help="The time until now, as 30m, 1h or 7d; instead of --since.")
@click.option("--after", help="Where the next page begins; a page says so.")
@click.option(
    "--limit",
    type=click.IntRange(1, request_questions.LIMIT_MAX),
    default=request_questions.LIMIT_DEFAULT,
    show_default=True,
)
@AS_JSON
def show_all(organisation: str, as_json: bool, **asked: Any) -> None:
    """List requests, the latest first."""

    async def work(
        _: Settings, connection: asyncpg.Connection
    ) -> tuple[Wanted, list[RecordedRequest], list[Any]]:
        organisation_id = await keys.find_organisation(connection, organisation)
        wanted = request_questions.read(organisation_id, Asked(**asked), datetime.now(UTC))
        found = await request_questions.answer(connection, wanted)
        return wanted, found, await requests.filed_days(connection, wanted.since, wanted.until)

    try:
        wanted, found, filed = database.run(work)
    except BadRequest as error:
        click.echo(f"penstock requests: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(msgspec.json.encode([request_stages.summary(one) for one in found]))
        return
    after = request_questions.next_after(found, wanted.limit)
    request_pages.listed(Console(), organisation, wanted, found, filed, after)


@command.command()
@click.argument("request_id")
@OF_ONE
@AS_JSON
def show(request_id: str, organisation: str, as_json: bool) -> None:
    """Explain REQUEST_ID: our id of it, or what its client called it."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Found:
        organisation_id = await keys.find_organisation(connection, organisation)
        found = await request_lookup.look_up(connection, organisation_id, request_id, datetime.now(UTC))
        if isinstance(found, request_lookup.NotFound):
            raise UnknownRequest(found.text)
        return found

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found.explained()))
        return
    request_pages.explained(Console(), found.request, found.price, found.refunds)
