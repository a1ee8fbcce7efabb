"""`penstock instance-types`: the slices of hardware that engines take, with their prices."""

from __future__ import annotations

import time

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.cli import database
from penstock.cli.pools import find_card
from penstock.settings import Settings
from penstock_base import money
from penstock_billing.prices import STANDARD_LIST, PriceBook
from penstock_engines import instance_types, placing, pools
from penstock_engines.instance_types import InstanceType
from penstock_engines.inventory import Inventory
from penstock_engines.placing import DoesNotFit
from penstock_engines.pools import PoolError

MINUTES_PER_HOUR = 60


@click.group()
def command() -> None:
    """Look at the slices of hardware that engines take."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show_all(as_json: bool) -> None:
    """List the types that this installation's hardware has, and what an hour of each costs."""

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[Inventory, PriceBook]:
        book = PriceBook()
        await book.load(connection)
        return await _hardware(connection), book

    hardware, book = database.run(work)
    types = instance_types.offered(hardware)
    prices = {each.name: _nano_usd_per_hour(book, each) for each in types}
    if as_json:
        rows = [msgspec.to_builtins(each) | {"nano_usd_per_hour": prices[each.name]} for each in types]
        click.echo(msgspec.json.encode(rows))
        return
    table = Table(title=f"Instance types of {_said(hardware)}")
    table.add_column("Type", no_wrap=True)
    for heading in ("GPUs", "GiB for an engine", "USD per hour"):
        table.add_column(heading, justify="right")
    for each in types:
        price = prices[each.name]
        table.add_row(
            each.name,
            str(each.gpus or "none"),
            f"{each.memory_gib:.1f}",
            money.nano_to_usd(price) if price is not None else "no price",
        )
    Console().print(table)
    if None in prices.values():
        name = next(name for name, price in prices.items() if price is None)
        click.echo(f"Give a type its price with `penstock prices minute instance {name} --per-hour 0.10`.")


@command.command()
@click.argument("model")
def fit(model: str) -> None:
    """Say which types hold an engine of MODEL, or why none does."""

    async def work(told: Settings, connection: asyncpg.Connection) -> tuple[list[InstanceType], str]:
        card = find_card(told, model)
        hardware = await _hardware(connection)
        try:
            needs_gib = placing.place(hardware, [], card).memory_gib
        except DoesNotFit as reason:
            raise PoolError(str(reason)) from None
        types = instance_types.offered(hardware)
        gpus = placing.gpus_on(hardware, card)
        return [each for each in types if each.holds(needs_gib, gpus)], f"{needs_gib:.1f} GiB"

    types, needs = database.run(work)
    click.echo(f"{model} needs {needs}; it fits: " + (", ".join(map(str, types)) or "no type whole"))


async def _hardware(connection: asyncpg.Connection) -> Inventory:
    hardware = await pools.hardware(connection)
    if hardware is None:
        raise PoolError("no controller has told of its hardware yet: is `penstock up` running?")
    return hardware


def _nano_usd_per_hour(book: PriceBook, each: InstanceType) -> int | None:
    price = book.minute_on_list("instance", each.name, STANDARD_LIST, time.time())
    return price.nano_usd_per_minute * MINUTES_PER_HOUR if price is not None else None


def _said(hardware: Inventory) -> str:
    if hardware.gpus:
        return f"{len(hardware.gpus)} GPUs"
    return f"{hardware.cpu_slots} CPU slots and {hardware.memory_gib:.1f} GiB"
