"""`penstock ledger`: balances, transactions, the requests behind an entry; corrections and refunds."""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import asyncpg
import click
import msgspec
from rich.console import Console

from penstock.access import keys
from penstock.cli import amounts, database, ledger_pages
from penstock.cli.amounts import Usd
from penstock.cli.ledger_pages import Names, Shown
from penstock.settings import Settings
from penstock_billing import books, giving_back
from penstock_billing.books import Balance, Transaction
from penstock_billing.ledger import AccountKind, Booked, TransactionKind
from penstock_billing.wishes import Wish

DAY = click.DateTime(["%Y-%m-%d"])
OF_ONE = click.option("--organisation", help="Only this organisation; by default all of them.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
NOTE = click.option("--note", required=True, help="Why; the customer may read it.")


@click.group()
def command() -> None:
    """Look into the books, and make good what was wrong in them.

    Every movement of money is a transaction whose entries sum to 0. None is ever changed: what was wrong is
    made good by another one.
    """


@command.command()
@OF_ONE
@AS_JSON
def balances(organisation: str | None, as_json: bool) -> None:
    """Show what every account holds."""

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[list[Balance], Names]:
        found = await books.balances(connection, await _find(connection, organisation))
        return found, await _names(connection, found)

    found, names = database.run(work)
    if as_json:
        click.echo(
            msgspec.json.encode(
                [ledger_pages.account_fields(row, names, row.posted_nano_usd) for row in found]
            )
        )
        return
    Console().print(ledger_pages.balances(found, names, organisation))


@command.command()
@OF_ONE
@click.option(
    "--account", type=click.Choice([kind.value for kind in AccountKind]), help="Only what moved this account."
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.value for kind in TransactionKind]),
    multiple=True,
    help="Only these; by default all but those that lend credit to gateways.",
)
@click.option("--since", type=DAY, help="First day (UTC) of booking.")
@click.option("--until", type=DAY, help="Last day (UTC), included.")
@click.option(
    "--before",
    type=click.IntRange(1, books.NUMBER_MAX),
    default=books.NUMBER_MAX,
    help="Only numbers below this: the next page.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@AS_JSON
def transactions(
    organisation: str | None,
    account: str | None,
    kinds: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    before: int,
    limit: int,
    as_json: bool,
) -> None:
    """List transactions, the latest first."""

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[list[Transaction], Names]:
        found = await books.transactions(
            connection,
            await _find(connection, organisation),
            account=AccountKind(account) if account else None,
            kinds=frozenset(TransactionKind(kind) for kind in kinds) or books.NOT_LEASES,
            since=since.replace(tzinfo=UTC) if since else None,
            until=until.replace(tzinfo=UTC) + timedelta(days=1) if until else None,
            before=before,
            limit=limit,
        )
        return found, await _names(connection, [line for each in found for line in each.entries])

    found, names = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode([ledger_pages.transaction_fields(each, names) for each in found]))
        return
    Console().print(ledger_pages.transactions(found, names, organisation, limit))


@command.command()
@click.argument("transaction", type=int)
@OF_ONE
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Requests a page."
)
@click.option(
    "--page", type=click.IntRange(1), default=1, show_default=True, help="Which page of the requests."
)
@AS_JSON
def show(transaction: int, organisation: str | None, limit: int, page: int, as_json: bool) -> None:
    """Show TRANSACTION: its entries, and the requests or minutes that they sum up."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Shown:
        booked = await books.transaction(connection, transaction, await _find(connection, organisation))
        names = await _names(connection, booked.entries)
        shown = Shown(booked, await books.corrected_by(connection, transaction), names)
        if booked.kind is TransactionKind.USAGE:
            shown.wallets = await books.charged_wallets(connection, booked)
            after = books.BEGINNING
            for _page in range(page):
                shown.requests = await books.charged_requests(connection, booked, after=after, limit=limit)
                after = shown.requests[-1].place if shown.requests else after
            shown.archived_days = await books.archived_days(connection, booked)
        elif booked.kind is TransactionKind.MINUTES:
            shown.minutes = await books.charged_minutes(connection, booked)
        return shown

    shown = database.run(work)
    if as_json:
        fields = ledger_pages.transaction_fields(shown.booked, shown.names)
        more = {"corrected_by": shown.corrected_by, "wallets": shown.wallets}
        rest = {"requests": shown.requests, "minutes": shown.minutes, "archived_days": shown.archived_days}
        click.echo(msgspec.json.encode(fields | more | rest))
        return
    console = Console()
    ledger_pages.transaction(console, shown.booked, shown.corrected_by, shown.names)
    if shown.wallets or shown.archived_days:
        ledger_pages.requests(console, shown, page, limit)
    if shown.minutes:
        ledger_pages.minutes(console, shown.minutes)


@command.command()
@click.argument("transaction", type=int)
@click.option("--amount", type=Usd(), required=True, help="US dollars to give back, or to turn round.")
@NOTE
@click.option("--organisation", help="Whose part of it: a batch of usage charges several.")
@click.option("--project", help="Which project's wallet, where it charged several ('' for none's).")
@amounts.REFERENCE
@AS_JSON
def correct(
    transaction: int,
    amount: int,
    note: str,
    organisation: str | None,
    project: str | None,
    reference: str | None,
    as_json: bool,
) -> None:
    """Make TRANSACTION good by another one.

    Of a charge, the amount is given back to where it was paid from. A top-up, payment, refund or correction
    is turned round for the amount.
    """
    wish = _wish(reference, "correction", amount, note)

    async def work(_: Settings, connection: asyncpg.Connection) -> Booked:
        organisation_id = await _find(connection, organisation)
        project_id = None
        if project is not None:
            owner = (
                organisation_id
                or (await books.transaction(connection, transaction)).entries[0].organisation_id
            )
            project_id = await keys.find_project(connection, owner, project) if project else 0
        return await giving_back.correct(connection, wish, transaction, organisation_id, project_id)

    said(database.run(work), wish.ref, as_json)


@command.command()
@click.argument("request_id", required=False)
@click.option("--amount", type=Usd(), help="US dollars; by default all that the request cost.")
@NOTE
@click.option("--organisation", default="default", show_default=True)
@click.option("--project", help="Whose wallet, for an amount without a request.")
@amounts.REFERENCE
@AS_JSON
def refund(
    request_id: str | None,
    amount: int | None,
    note: str,
    organisation: str,
    project: str | None,
    reference: str | None,
    as_json: bool,
) -> None:
    """Give back what REQUEST_ID cost, or an amount that is no one request's.

    It becomes credit again where it was paid from credit, and else comes off what is owed. Nothing is given
    back twice, whatever reference is used.
    """
    if request_id is None and amount is None:
        raise click.UsageError("name a request, or an amount by --amount")
    if request_id is not None and project is not None:
        raise click.UsageError("--project goes with --amount only: a request knows its wallet")
    wish = _wish(reference, "refund", amount or 0, note)

    async def work(_: Settings, connection: asyncpg.Connection) -> Booked:
        organisation_id = await keys.find_organisation(connection, organisation)
        if request_id is not None:
            return await giving_back.refund_request(connection, wish, organisation_id, request_id)
        project_id = await keys.find_project(connection, organisation_id, project) if project else 0
        return await giving_back.refund_amount(connection, wish, organisation_id, project_id)

    said(database.run(work), wish.ref, as_json)


def said(booked: Booked, ref: str, as_json: bool) -> None:
    """Say what was booked, and how to look at it."""
    if as_json:
        fields = {"transaction": booked.id, "reference": ref, "repeated": booked.repeated}
        click.echo(msgspec.json.encode(fields))
        return
    if booked.repeated:
        click.echo(f"{ref} was booked before, as transaction {booked.id}: nothing was changed.")
    else:
        click.echo(f"Booked as transaction {booked.id}, under the reference {ref}.")
    click.echo(f"See it: penstock ledger show {booked.id}", err=True)


def _wish(reference: str | None, kind: str, amount_nano_usd: int, note: str) -> Wish:
    return Wish(
        ref=amounts.reference(reference, kind),
        amount_nano_usd=amount_nano_usd,
        note=note,
        actor=getpass.getuser(),
    )


async def _find(connection: asyncpg.Connection, organisation: str | None) -> int | None:
    return None if organisation is None else await keys.find_organisation(connection, organisation)


async def _names(connection: asyncpg.Connection, rows: Iterable[Balance | books.Line]) -> Names:
    accounts = list(rows)
    return Names(
        *await keys.names(
            connection, {row.organisation_id for row in accounts}, {row.project_id for row in accounts}
        )
    )
