"""`penstock prices`: what is paid, now and by what is scheduled. Changing it is in `prices_change.py`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import asyncpg
import click
import msgspec
from rich.console import Console

from penstock.access import keys
from penstock.cli import database, prices_change, prices_pages, prices_simulate
from penstock.cli.moments import Moment
from penstock.settings import Settings
from penstock_billing import price_history
from penstock_billing.errors import PriceError
from penstock_billing.price_changes import find_list, near
from penstock_billing.price_history import Asked, Held, Status
from penstock_billing.prices import MinutePriceVersion, PriceBook, PriceVersion


class Shown(msgspec.Struct):
    """All that is to be shown."""

    book: PriceBook
    whose: str
    models: list[Held[PriceVersion]]
    minutes: list[Held[MinutePriceVersion]]


@click.group()
def command() -> None:
    """Show, add and schedule prices.

    They are told in US dollars per 1M tokens, image, minute of audio or document. Each is a version that
    never changes: a new price is a new version, from now or from a later moment on. A request keeps the
    version it was admitted with, so no change touches the past.
    """


@command.command()
@click.argument("model", required=False)
@click.option("--list", "list_name", help="On this list; by default on `standard`.")
@click.option("--organisation", help="What this organisation pays, by the list it is assigned to.")
@click.option("--at", type=Moment(), help="As of this moment (UTC), as 2026-12-01 or 2026-12-01T08:00Z.")
@click.option("--history", is_flag=True, help="Show what is past, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def show(
    model: str | None,
    list_name: str | None,
    organisation: str | None,
    at: datetime | None,
    history: bool,
    as_json: bool,
) -> None:
    """Show the prices in force and those that are scheduled, of MODEL or of all."""
    if list_name is not None and organisation is not None:
        click.echo(
            "penstock prices: --list or --organisation, not both: an organisation has a list", err=True
        )
        sys.exit(2)
    moment = datetime.now(UTC) if at is None else at

    async def work(_: Settings, connection: asyncpg.Connection) -> Shown:
        book = PriceBook()
        await book.load(connection)
        asked, whose = await _whose(connection, book, list_name, organisation, moment)
        return _found(book, asked, whose, model, moment, history=history)

    shown = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(_fields(shown)))
        return
    console = Console()
    console.print(prices_pages.models(shown.models, shown.book, shown.whose, at, console.width))
    if (beside := prices_pages.others(shown.models)) is not None:
        console.print(beside)
    if shown.minutes:
        console.print(prices_pages.minutes(shown.minutes, shown.book, shown.whose))


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def lists(as_json: bool) -> None:
    """List the price lists, and who pays by them."""

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[PriceBook, dict[int, str]]:
        book = PriceBook()
        await book.load(connection)
        organisations = {each.organisation_id for each in book.assignments}
        return book, (await keys.names(connection, organisations, set()))[0]

    book, names = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(prices_pages.list_fields(book, names, datetime.now(UTC))))
    else:
        Console().print(prices_pages.lists(book, names, datetime.now(UTC)))


for change in prices_change.COMMANDS:
    command.add_command(change)
command.add_command(prices_simulate.simulate)


async def _whose(
    connection: asyncpg.Connection,
    book: PriceBook,
    list_name: str | None,
    organisation: str | None,
    moment: datetime,
) -> tuple[Asked, str]:
    """Whose prices are asked for, and that in words."""
    if organisation is not None:
        organisation_id = await keys.find_organisation(connection, organisation)
        pays_by = price_history.list_name(book, book.list_id(organisation_id, moment.timestamp()))
        return Asked(organisation_id=organisation_id), f"of {organisation}, by the list {pays_by}"
    found = find_list(book.lists.values(), list_name or "standard")
    return Asked(price_list_id=found.id), f"on the list {found.name}"


def _found(
    book: PriceBook, asked: Asked, whose: str, model: str | None, moment: datetime, *, history: bool
) -> Shown:
    priced = price_history.models(book, asked)
    if model is not None and model not in priced:
        raise PriceError(f"there is no price for the model {model[:100]!r}{near(model, priced)}")
    chosen = [model] if model is not None else priced
    minutes = price_history.minutes(book, asked) if model is None else []
    held = [each for name in chosen for each in price_history.of_model(book, asked, name, moment)]
    by_minute = [
        each
        for kind, subject in minutes
        for each in price_history.of_minutes(book, asked, kind, subject, moment)
    ]
    return Shown(
        book,
        whose,
        [each for each in held if history or each.status is not Status.PAST],
        [each for each in by_minute if history or each.status is not Status.PAST],
    )


def _fields(shown: Shown) -> dict[str, Any]:
    models = [
        price_history.told(held, shown.book) | {"set_by": held.price.origin, "note": held.price.note}
        for held in shown.models
    ]
    minutes = [
        price_history.minute_told(held, shown.book) | {"note": held.price.note} for held in shown.minutes
    ]
    return {"models": models, "minutes": minutes}
