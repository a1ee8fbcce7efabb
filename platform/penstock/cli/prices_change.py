"""`penstock prices add`, `minute`, `new-list` and `assign`: each adds a row, from now or from later on."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
import click
from rich.console import Console

from penstock.access import keys
from penstock.changes import Change as Changed
from penstock.changes import Changes
from penstock.cli import database, prices_pages
from penstock.cli.moments import Moment, shown
from penstock.settings import Settings
from penstock_billing import price_changes, price_units
from penstock_billing.errors import PriceError
from penstock_billing.price_changes import Added, Change, When, find_list, near
from penstock_billing.price_units import BY_NAME
from penstock_billing.prices import (
    Assignment,
    MinuteKind,
    MinutePriceVersion,
    PriceBook,
    PriceList,
    PriceVersion,
)
from penstock_catalog.errors import CardError
from penstock_catalog.shelf import BUILTIN, Shelf

T = TypeVar("T")
OPTIONS = {
    "input": "--input",
    "cached_input": "--cached",
    "output": "--output",
    "image": "--image",
    "audio_minute": "--audio-minute",
    "document": "--document",
    "batch_discount": "--batch-discount",
    "from": "--from",
    "note": "--note",
    "name": "NAME",
    "subject": "SUBJECT",
    "per_minute": "--per-minute",
}
"""Which option a refused field came from."""


class Usd(click.ParamType[int]):
    """A price in dollars, read as pico-dollars for one of what the unit counts."""

    name = "usd"

    def __init__(self, unit: str) -> None:
        self._unit = BY_NAME[unit]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text, or fail with what would be accepted."""
        try:
            return value if isinstance(value, int) else price_units.pico_usd(self._unit, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Discount(click.ParamType[int]):
    """A percentage, read as millionths."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text, or fail with what would be accepted."""
        try:
            return value if isinstance(value, int) else price_units.discount_ppm(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def dated(what: Callable[..., None]) -> Callable[..., None]:
    """The options of everything that holds from a moment on."""
    for option in reversed(
        (
            click.option(
                "--from", "valid_from", type=Moment(), help="From this moment (UTC) on; else from now."
            ),
            click.option(
                "--until-scheduled",
                is_flag=True,
                help="Accept that a change which is scheduled already ends it.",
            ),
            click.option("--note", default="", help="Why; only operators see it."),
            click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing."),
        )
    ):
        what = option(what)
    return what


LIST = click.option("--list", "list_name", default="standard", show_default=True, help="On this list.")


@click.command()
@click.argument("model")
@click.option("--input", "input_pico_usd", type=Usd("input"), help="Per 1M prompt tokens.")
@click.option(
    "--cached",
    "cached_input_pico_usd",
    type=Usd("cached_input"),
    help="Per 1M prompt tokens found in the cache.",
)
@click.option("--output", "output_pico_usd", type=Usd("output"), help="Per 1M tokens made.")
@click.option("--image", "image_pico_usd", type=Usd("image"), help="Per image.")
@click.option(
    "--audio-minute", "audio_second_pico_usd", type=Usd("audio_minute"), help="Per minute of audio."
)
@click.option("--document", "document_pico_usd", type=Usd("document"), help="Per document that is ranked.")
@click.option("--batch-discount", "batch_discount_ppm", type=Discount(), help='What batches pay less: "50%".')
@LIST
@dated
def add(
    model: str,
    list_name: str,
    valid_from: datetime | None,
    until_scheduled: bool,
    note: str,
    dry_run: bool,
    **prices: int | None,
) -> None:
    """Give MODEL other prices, in US dollars, from now or from a later moment on.

    What is left out stays as it is. On a list of its own, that is what the standard list says. From then on
    the model's card does not change the price any more.

    \b
    penstock prices add qwen/qwen3-8b --input 0.15 --cached 0.075 --output 0.60
    penstock prices add qwen/qwen3-8b --output 0.50 --from 2027-01-01
    """
    when = When(valid_from=valid_from, note=note, until_scheduled=until_scheduled, dry_run=dry_run)

    async def work(
        told: Settings, connection: asyncpg.Connection, book: PriceBook
    ) -> tuple[PriceBook, Added[PriceVersion]]:
        known = {card.id for card in Shelf.open([BUILTIN, *told.cards]).cards}
        known |= {each.model for each in book.versions}
        if model not in known:
            raise PriceError(f"there is no model {model[:100]!r}{near(model, known)}")
        price_list = find_list(book.lists.values(), list_name)
        return book, await price_changes.add(connection, model, Change(**prices), when, price_list.id)

    book, added = _run(work, dry_run=dry_run)
    console = Console()
    console.print(prices_pages.change(added, book, model))
    _say(console, added, when, f"{model} on the list {list_name}")


@click.command()
@click.argument("kind", type=click.Choice(["endpoint", "instance"]))
@click.argument("subject")
@click.option("--per-minute", help="US dollars per minute, with at most 9 decimals.")
@click.option("--per-hour", help="US dollars per hour, instead.")
@LIST
@dated
def minute(
    kind: MinuteKind,
    subject: str,
    per_minute: str | None,
    per_hour: str | None,
    list_name: str,
    valid_from: datetime | None,
    until_scheduled: bool,
    note: str,
    dry_run: bool,
) -> None:
    """Set what a minute costs: of a KIND of endpoint, or of an instance type.

    \b
    penstock prices minute endpoint serverless --per-minute 0.0001
    penstock prices minute instance gpu-80 --per-hour 3.00 --from 2027-01-01
    """
    when = When(valid_from=valid_from, note=note, until_scheduled=until_scheduled, dry_run=dry_run)
    nano_usd = _per_minute(per_minute, per_hour)

    async def work(
        _: Settings, connection: asyncpg.Connection, book: PriceBook
    ) -> tuple[PriceBook, Added[MinutePriceVersion]]:
        price_list = find_list(book.lists.values(), list_name)
        added = await price_changes.add_minute(connection, kind, subject, nano_usd, when, price_list.id)
        return book, added

    book, added = _run(work, dry_run=dry_run)
    console = Console()
    console.print(prices_pages.minute_change(added, book))
    _say(console, added, when, f"{kind} {subject} on the list {list_name}")


@click.command("new-list")
@click.argument("name")
@click.option("--note", default="", help="What it is for; only operators see it.")
def new_list(name: str, note: str) -> None:
    """Make a price list called NAME; until prices are added, all of it costs as on `standard`."""

    async def work(_: Settings, connection: asyncpg.Connection, __: PriceBook) -> PriceList:
        return await price_changes.new_list(connection, name, note)

    made = _run(work, dry_run=False)
    click.echo(f"The list {made.name} is there. What it does not name costs what the list standard says.")
    click.echo(
        f"Next: penstock prices add MODEL --list {made.name} --input …, "
        f"then penstock prices assign ORGANISATION {made.name}",
        err=True,
    )


@click.command()
@click.argument("organisation")
@click.argument("list_name", metavar="LIST")
@dated
def assign(
    organisation: str,
    list_name: str,
    valid_from: datetime | None,
    until_scheduled: bool,
    note: str,
    dry_run: bool,
) -> None:
    """Let ORGANISATION pay by LIST, from now or from a later moment on; `standard` ends it."""
    when = When(valid_from=valid_from, note=note, until_scheduled=until_scheduled, dry_run=dry_run)

    async def work(
        _: Settings, connection: asyncpg.Connection, book: PriceBook
    ) -> tuple[PriceBook, Added[Assignment]]:
        organisation_id = await keys.find_organisation(connection, organisation)
        price_list = find_list(book.lists.values(), list_name)
        return book, await price_changes.assign(connection, organisation_id, price_list.id, when)

    book, added = _run(work, dry_run=dry_run)
    before = prices_pages.assigned(added.before, book)
    console = Console()
    console.print(f"{organisation}: {before} → {list_name}", highlight=False, soft_wrap=True)
    _say(console, added, when, f"{organisation} pays by the list {list_name}")


COMMANDS = (add, minute, new_list, assign)


def _per_minute(per_minute: str | None, per_hour: str | None) -> int:
    """Nano-dollars per minute from whichever was given."""
    if (per_minute is None) == (per_hour is None):
        raise click.UsageError("say the price with --per-minute or with --per-hour, one of them")
    try:
        if per_minute is not None:
            return price_units.nano_usd_per_minute(per_minute)
        return price_units.nano_usd_per_minute(per_hour or "", minutes=60)
    except ValueError as error:
        raise click.UsageError(f"{'--per-minute' if per_minute else '--per-hour'}: {error}") from None


def _run(work: Callable[[Settings, asyncpg.Connection, PriceBook], Awaitable[T]], *, dry_run: bool) -> T:
    """Do it with all prices at hand, and tell the gateways; a refusal names the option it is about."""

    async def told_of(told: Settings, connection: asyncpg.Connection) -> T:
        book = PriceBook()
        await book.load(connection)
        try:
            done = await work(told, connection, book)
        except PriceError as error:
            option = OPTIONS.get(error.field)
            raise PriceError(f"{option}: {error}" if option else str(error)) from None
        if not dry_run:
            changes = Changes(told.redis_url)
            await changes.tell(Changed.PRICES)
            await changes.close()
        return done

    try:
        return database.run(told_of)
    except CardError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


def _say(console: Console, added: Added[Any], when: When, what: str) -> None:
    """Say from when it holds, until when, and what follows from that."""
    since = "now" if when.valid_from is None else f"{shown(added.after.valid_from)} UTC"
    verb = "Would hold" if when.dry_run else "Holds"
    lines = [f"{verb} from {since}: {what}."]
    if added.next is not None:
        lines.append(f"Until {shown(added.next.valid_from)} UTC, when what is scheduled already follows.")
    if when.dry_run:
        lines.append("Nothing was changed; leave out --dry-run to do it.")
    elif when.valid_from is None:
        lines.append("Gateways use it within a second; requests that were admitted before keep their price.")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
