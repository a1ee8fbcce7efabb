"""`penstock billing gateways` and `penstock billing settle`: processes that hold credit, and lost ones."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.cli import amounts, database, moments
from penstock.settings import Settings
from penstock_base import money
from penstock_billing import lost
from penstock_billing.lost import Unsettled


@click.command("gateways")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show_all(as_json: bool) -> None:
    """List the gateway processes that may still hold credit, the most silent first."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[Unsettled]:
        async with connection.transaction():
            return await lost.unsettled(connection)

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table = Table(title="Gateway processes")
    table.add_column("Boot", overflow="fold")
    table.add_column("Host", overflow="fold")
    table.add_column("Last seen (UTC)", no_wrap=True)
    amounts.add_money(table, "Holds USD")
    for each in found:
        seen = "lives" if each.lives else moments.shown(each.seen_at)
        table.add_row(each.boot_id, each.host, seen, amounts.usd(each.lent_nano_usd))
    Console().print(table)
    if any(not each.lives for each in found):
        click.echo(
            "What is silent is settled when a gateway on its host ships its files. "
            "If they are lost with their machine: `penstock billing settle HOST`."
        )


@click.command("settle")
@click.argument("name", metavar="HOST|BOOT")
@click.option("--yes", is_flag=True, help="Do not ask.")
def settle(name: str, yes: bool) -> None:
    """Give up the journal files of a lost machine HOST, or of one process BOOT.

    What they had not shipped is never charged; what they held of credit goes back to its wallets.
    """
    if not yes:
        click.confirm(f"Nothing that {name} had not shipped will ever be charged. Give it up?", abort=True)

    async def work(_: Settings, connection: asyncpg.Connection) -> Sequence[Unsettled]:
        return await lost.settle(connection, name)

    given_up = database.run(work)
    held = money.nano_to_usd(sum(each.lent_nano_usd for each in given_up))
    click.echo(f"{len(given_up)} processes are settled; {held} USD go back to their wallets within seconds.")
