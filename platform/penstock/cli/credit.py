"""`penstock credit`: what wallets have and how they pay; top-ups and promotions."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.access import keys
from penstock.cli import amounts, database
from penstock.cli.amounts import Usd
from penstock.cli.ledger import AS_JSON, said
from penstock.settings import Settings
from penstock_base import money
from penstock_billing import promotions, wallets
from penstock_billing.leases import Wallet
from penstock_billing.ledger import Booked
from penstock_billing.promotions import Promotion
from penstock_billing.record import Funding
from penstock_billing.wallets import WalletState
from penstock_billing.wishes import Wish

ORGANISATION = click.option("--organisation", default="default", show_default=True)
PROJECT = click.option("--project", help="The wallet of this project; by default the organisation's own.")
NOTE = click.option("--note", default="", help="Why; the customer may read it.")
DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def command() -> None:
    """See and change what wallets have and how they pay.

    An organisation has a wallet, and each of its projects may have one of its own. A prepaid wallet pays from
    credit; a postpaid one owes what it used.
    """


@command.command()
@ORGANISATION
@AS_JSON
def show(organisation: str, as_json: bool) -> None:
    """Show every wallet of an organisation: credit, promotions, what is owed, how long it lasts."""

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[list[WalletState], dict[int, str]]:
        found = await wallets.states(connection, await keys.find_organisation(connection, organisation))
        _organisations, names = await keys.names(
            connection, set(), {state.wallet.project_id for state in found}
        )
        return found, names

    found, names = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode([fields(state, names) for state in found]))
        return
    console = Console()
    for state in found:
        project = names.get(state.wallet.project_id, "")
        console.print(
            Text(" · ".join(part for part in (organisation, project) if part), style="bold"), end=""
        )
        console.print(Text(f": {manner(state)} (in US dollars)"))
        console.print(_wallet(state))
        if state.promotions:
            console.print(_promotions(state.promotions))


@command.command("top-up")
@click.argument("amount", type=Usd())
@ORGANISATION
@PROJECT
@NOTE
@amounts.REFERENCE
@AS_JSON
def top_up(
    amount: int, organisation: str, project: str | None, note: str, reference: str | None, as_json: bool
) -> None:
    """Add AMOUNT US dollars of credit that was paid for."""
    wish = Wish(
        ref=amounts.reference(reference, "top-up"), amount_nano_usd=amount, note=note, actor=getpass.getuser()
    )
    _book(organisation, project, wish, wallets.top_up, as_json)


@command.command()
@click.argument("amount", type=Usd())
@ORGANISATION
@PROJECT
@click.option("--expires", type=DAY, help="The last day (UTC) on which it can be used; by default it stays.")
@NOTE
@amounts.REFERENCE
@AS_JSON
def promote(
    amount: int,
    organisation: str,
    project: str | None,
    expires: datetime | None,
    note: str,
    reference: str | None,
    as_json: bool,
) -> None:
    """Give AMOUNT US dollars of promotional credit; it is used before credit that was paid for."""
    expires_at = expires.replace(tzinfo=UTC) + timedelta(days=1) if expires else None
    wish = Wish(
        ref=amounts.reference(reference, "promotion"),
        amount_nano_usd=amount,
        note=note,
        actor=getpass.getuser(),
    )

    async def book(connection: asyncpg.Connection, wish: Wish, wallet: Wallet) -> Booked:
        return await promotions.promote(connection, wish, wallet, expires_at)

    _book(organisation, project, wish, book, as_json)


@command.command()
@click.argument("promotion", type=int, required=False)
@ORGANISATION
def expire(promotion: int | None, organisation: str) -> None:
    """End PROMOTION now (its number is in `penstock credit show`); without one, book what is due.

    The controller books what is due every minute by itself.
    """

    async def work(_: Settings, connection: asyncpg.Connection) -> int:
        if promotion is None:
            return await promotions.expire_due(connection)
        owner = await keys.find_organisation(connection, organisation)
        return await promotions.end(connection, owner, promotion)

    expired = database.run(work)
    click.echo(f"{money.nano_to_usd(expired)} USD expired.")
    if promotion is not None:
        click.echo("What gateways hold of it follows as it comes back.", err=True)


@command.command()
@click.argument("funding", type=click.Choice([each.value for each in Funding]))
@ORGANISATION
@PROJECT
@click.option("--strict", is_flag=True, help="Prepaid: admit no request for more than is there.")
@click.option("--owed-max", type=Usd(zero=True), help="Postpaid: admit nothing beyond so much owed.")
def mode(funding: str, organisation: str, project: str | None, strict: bool, owed_max: int | None) -> None:
    """Say how a wallet pays: prepaid or postpaid. A project gets a wallet of its own by it.

    What was admitted is paid as it was admitted; gateways know within a second or two.
    """
    chosen = Funding(funding)
    if strict and chosen is not Funding.PREPAID:
        raise click.UsageError("--strict goes with prepaid")
    if owed_max is not None and chosen is not Funding.POSTPAID:
        raise click.UsageError("--owed-max goes with postpaid")

    async def work(_: Settings, connection: asyncpg.Connection) -> WalletState:
        wallet = await _wallet_of(connection, organisation, project)
        await wallets.set_terms(connection, wallet, chosen, strict=strict, owed_max_nano_usd=owed_max)
        found = await wallets.states(connection, wallet.organisation_id)
        return next(state for state in found if state.wallet == wallet)

    state = database.run(work)
    click.echo(f"It is {manner(state)} from now on.")
    if chosen is Funding.PREPAID and state.available_nano_usd <= 0:
        click.echo("It has no credit yet: add some by `penstock credit top-up`.", err=True)
    if chosen is Funding.POSTPAID and state.available_nano_usd > 0:
        left = amounts.grouped(state.available_nano_usd)
        click.echo(f"Its credit of {left} USD stays, and is used when it is prepaid again.", err=True)


def fields(state: WalletState, names: dict[int, str]) -> dict[str, object]:
    """A wallet as JSON shows it."""
    numbers = {
        "available": state.available_nano_usd,
        "prepaid": state.prepaid_nano_usd,
        "promotional": state.promotional_nano_usd,
        "leased": state.leased_nano_usd,
        "owed": state.owed_nano_usd,
        "burn_per_day": state.burn_per_day_nano_usd,
    }
    found: dict[str, object] = {
        "project": names.get(state.wallet.project_id),
        "funding": state.funding.value,
        "strict": state.strict,
        "owed_max_nano_usd": state.owed_max_nano_usd,
    }
    for name, nano_usd in numbers.items():
        found |= {f"{name}_nano_usd": nano_usd, f"{name}_usd": money.nano_to_usd(nano_usd)}
    return found | {"days_left": state.days_left, "promotions": msgspec.to_builtins(state.promotions)}


def manner(state: WalletState) -> str:
    """How a wallet pays, in words."""
    if state.funding is Funding.PREPAID:
        return "prepaid, strict" if state.strict else "prepaid"
    if state.owed_max_nano_usd is None:
        return "postpaid"
    return f"postpaid, up to {amounts.grouped(state.owed_max_nano_usd)} USD owed"


def _wallet(state: WalletState) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    rows = [
        ("available", state.available_nano_usd, ""),
        ("  paid for", state.prepaid_nano_usd, ""),
        ("  promotional", state.promotional_nano_usd, "used first"),
        ("  held by gateways", state.leased_nano_usd, "of both kinds"),
        ("owed", state.owed_nano_usd, ""),
        ("spent per day", state.burn_per_day_nano_usd, f"mean of the last {wallets.BURN_DAYS} days"),
    ]
    for name, nano_usd, remark in rows:
        table.add_row(name, amounts.usd(nano_usd), remark)
    if state.days_left is not None:
        table.add_row("lasts for", f"{state.days_left:,} days", "")
    return table


def _promotions(found: list[Promotion]) -> Table:
    table = Table(title="Promotions, in the order of their use")
    table.add_column("Id", justify="right", no_wrap=True)
    amounts.add_money(table, "Given, USD")
    amounts.add_money(table, "Left, USD")
    table.add_column("Expires (UTC)", no_wrap=True)
    table.add_column("Note", overflow="fold")
    for each in found:
        expires = f"{each.expires_at:%Y-%m-%d %H:%M}" if each.expires_at else "never"
        given, left = amounts.usd(each.amount_nano_usd), amounts.usd(each.left_nano_usd)
        table.add_row(f"{each.id}", given, left, expires, Text(each.note))
    return table


def _book(
    organisation: str,
    project: str | None,
    wish: Wish,
    book: Callable[[asyncpg.Connection, Wish, Wallet], Awaitable[Booked]],
    as_json: bool,
) -> None:
    """Book a wish about a wallet, say so, and say when the wallet would not use the credit."""

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[Booked, WalletState | None]:
        wallet = await _wallet_of(connection, organisation, project)
        booked = await book(connection, wish, wallet)
        found = await wallets.states(connection, wallet.organisation_id)
        return booked, next((state for state in found if state.wallet == wallet), None)

    booked, state = database.run(work)
    said(booked, wish.ref, as_json)
    if as_json or state is None:
        return
    click.echo(f"Available now: {amounts.grouped(state.available_nano_usd)} USD.")
    if state.funding is not Funding.PREPAID or not state.named:
        option = f" --project {project}" if project else ""
        click.echo(
            f"This wallet is not prepaid, so its credit is not used: "
            f"penstock credit mode prepaid --organisation {organisation}{option}",
            err=True,
        )


async def _wallet_of(connection: asyncpg.Connection, organisation: str, project: str | None) -> Wallet:
    owner = await keys.find_organisation(connection, organisation)
    return Wallet(owner, await keys.find_project(connection, owner, project) if project else 0)
