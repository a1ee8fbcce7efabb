"""How the books look on a screen of 80 columns and more."""

from __future__ import annotations

from datetime import date
from itertools import groupby
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.cli import amounts
from penstock_base import money
from penstock_billing import books
from penstock_billing.books import Balance, ChargedMinutes, ChargedRequest, ChargedWallet, Line, Transaction

WIDE = 100
"""Columns of a screen that has room for more than must be said."""
SIGNS = "Plus: we have it, or it is owed to us. Minus: we owe it, or have earned it."


class Names(msgspec.Struct):
    """What people call organisations and projects."""

    organisations: dict[int, str]
    projects: dict[int, str]

    def organisation(self, organisation_id: int) -> str:
        """Its name, or its number where it has none."""
        return self.organisations.get(organisation_id, f"#{organisation_id}")

    def wallet(self, project_id: int) -> str:
        """The project whose wallet it is; nothing for the organisation's own."""
        return self.projects.get(project_id, f"#{project_id}") if project_id else ""

    def account(self, line: Balance | Line, *, short: bool) -> str:
        """The account in words; `short` leaves the organisation out."""
        owner = "" if short else self.organisation(line.organisation_id)
        parts = [owner, self.wallet(line.project_id), words(line.kind.value)]
        return " · ".join(part for part in parts if part)


class Shown(msgspec.Struct):
    """All that is to be shown of one transaction."""

    booked: Transaction
    corrected_by: list[int]
    names: Names
    wallets: list[ChargedWallet] = []
    requests: list[ChargedRequest] = []
    minutes: list[ChargedMinutes] = []
    archived_days: list[date] = []


def words(name: str) -> str:
    """An enum's value for people."""
    return name.replace("_", " ")


def account_fields(row: Balance | Line, names: Names, nano_usd: int) -> dict[str, Any]:
    """An account with an amount, as JSON shows it."""
    return {
        "organisation": names.organisation(row.organisation_id),
        "project": names.wallet(row.project_id) or None,
        "account": row.kind.value,
        "amount_nano_usd": nano_usd,
        "amount_usd": money.nano_to_usd(nano_usd),
    }


def transaction_fields(booked: Transaction, names: Names) -> dict[str, Any]:
    """A transaction as JSON shows it."""
    fields: dict[str, Any] = msgspec.to_builtins(booked)
    fields["entries"] = [account_fields(line, names, line.amount_nano_usd) for line in booked.entries]
    return fields


def balances(found: list[Balance], names: Names, organisation: str | None) -> Table:
    """Every account, by organisation and wallet; all of them together sum to 0."""
    total = sum(row.posted_nano_usd for row in found)
    table = Table(
        title=f"Balances of {organisation or 'all organisations'}", show_footer=bool(found), caption=SIGNS
    )
    table.add_column("Organisation", overflow="fold", footer="Sum")
    table.add_column("Project", overflow="fold")
    table.add_column("Account", no_wrap=True)
    amounts.add_money(table, "Balance, USD", footer=amounts.grouped(total))
    for organisation_id, rows in groupby(found, key=lambda row: row.organisation_id):
        name = names.organisation(organisation_id)
        wallet = None
        for row in rows:
            shown = "" if row.project_id == wallet else names.wallet(row.project_id)
            table.add_row(name, shown, words(row.kind.value), amounts.usd(row.posted_nano_usd))
            name, wallet = "", row.project_id
        table.add_section()
    if not found:
        table.caption = "No money has moved yet: send a request, or `penstock credit top-up`."
    return table


def transactions(found: list[Transaction], names: Names, organisation: str | None, limit: int) -> Table:
    """One block per transaction: what it is, then its entries."""
    table = Table(title=f"Transactions of {organisation or 'all organisations'}, latest first")
    table.add_column("Number", justify="right", no_wrap=True)
    table.add_column("Booked (UTC)", no_wrap=True)
    table.add_column("What", overflow="fold")
    table.add_column("Account", overflow="fold")
    amounts.add_money(table, "Amount, USD")
    for booked in found:
        number, when = f"{booked.id}", f"{booked.booked_at:%Y-%m-%d %H:%M}"
        what = words(booked.kind.value)
        for line in booked.entries:
            table.add_row(
                number,
                when,
                what,
                names.account(line, short=organisation is not None),
                amounts.usd(line.amount_nano_usd, sign=True),
            )
            number, when, what = "", "", ""
        table.add_section()
    if len(found) == limit:
        table.caption = f"Older ones: --before {found[-1].id}"
    elif not found:
        table.caption = "No transaction is like that."
    return table


def transaction(console: Console, booked: Transaction, corrected_by: list[int], names: Names) -> None:
    """One transaction whole."""
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    period = f"{booked.period_start:%Y-%m-%d %H:%M:%S}"
    if booked.period_end != booked.period_start:
        period += f" to {booked.period_end:%Y-%m-%d %H:%M:%S}"
    rows = {
        "reference": booked.ref,
        "booked": f"{booked.booked_at:%Y-%m-%d %H:%M:%S} UTC",
        "happened": f"{period} UTC",
        "by": booked.actor,
        "note": booked.note,
        "makes good": f"transaction {booked.corrects}" if booked.corrects else "",
        "made good by": ", ".join(f"transaction {number}" for number in corrected_by),
    }
    for name, value in rows.items():
        if value:
            head.add_row(name, Text(value))
    console.print(Text(f"Transaction {booked.id}: {words(booked.kind.value)}", style="bold"))
    console.print(head)
    total = sum(line.amount_nano_usd for line in booked.entries)
    table = Table(show_footer=True)
    table.add_column("Account", overflow="fold", footer="Sum")
    amounts.add_money(table, "Amount, USD", footer=amounts.grouped(total))
    for line in booked.entries:
        table.add_row(names.account(line, short=False), amounts.usd(line.amount_nano_usd, sign=True))
    console.print(table)
    console.print(Text(SIGNS, style="dim"))


def requests(console: Console, shown: Shown, page: int, limit: int) -> None:
    """The requests behind the entries, and that they sum up to them."""
    table = Table(title=f"Requests, page {page}")
    table.add_column("Ended (UTC)", no_wrap=True)
    table.add_column("Request", no_wrap=True)
    wide = console.width >= WIDE
    if wide:
        table.add_column("Model", overflow="fold")
    amounts.add_money(table, "Cost, USD")
    for one in shown.requests:
        ended, cost = f"{one.ended_at:%m-%d %H:%M:%S}", amounts.usd(one.cost_nano_usd)
        table.add_row(ended, one.request_id, *([one.model] if wide else []), cost)
    console.print(table)
    for charged in shown.wallets:
        booked_nano_usd = books.charged_nano_usd(shown.booked, charged)
        owner = " · ".join(
            part
            for part in (
                shown.names.organisation(charged.organisation_id),
                shown.names.wallet(charged.project_id),
                charged.funding.value,
            )
            if part
        )
        sums = f"{owner}: {charged.requests:,} requests cost {amounts.grouped(charged.cost_nano_usd)} USD"
        if charged.cost_nano_usd == booked_nano_usd:
            console.print(Text(f"{sums}, as booked."))
        else:
            console.print(
                Text(f"{sums}, but {amounts.grouped(booked_nano_usd)} USD was booked.", style="bold red")
            )
    if shown.archived_days:
        days = ", ".join(f"{day}" for day in shown.archived_days)
        console.print(Text(f"Requests of {days} are in archive files only and are not listed here."))
    if len(shown.requests) == limit:
        console.print(Text(f"More: --page {page + 1}"))


def minutes(console: Console, charged: list[ChargedMinutes]) -> None:
    """The minutes behind the entries."""
    total = sum(each.cost_nano_usd for each in charged)
    table = Table(title="Minutes", show_footer=True)
    table.add_column("From (UTC)", no_wrap=True, footer="Sum")
    table.add_column("Of", overflow="fold")
    table.add_column("Priced as", overflow="fold")
    table.add_column("Minutes", justify="right", footer=f"{sum(each.minutes for each in charged):,}")
    amounts.add_money(table, "Cost, USD", footer=amounts.grouped(total))
    for each in charged:
        table.add_row(
            f"{each.since:%Y-%m-%d %H:%M}",
            f"{each.kind} {each.subject}",
            each.priced_as,
            f"{each.minutes:,}",
            amounts.usd(each.cost_nano_usd),
        )
    console.print(table)
