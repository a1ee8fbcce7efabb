"""How prices look on a screen of 80 columns and more."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from penstock.cli.moments import shown
from penstock_billing import price_history, price_units
from penstock_billing.price_changes import Added
from penstock_billing.price_history import Held, Status
from penstock_billing.price_units import TOKENS, UNITS
from penstock_billing.prices import (
    STANDARD_LIST,
    Assignment,
    MinutePriceVersion,
    PriceBook,
    PriceVersion,
)

STYLES = {Status.PAST: "dim", Status.IN_FORCE: "", Status.SCHEDULED: "yellow"}
OTHERS = UNITS[len(TOKENS) :]
WIDE = 100
"""Columns of a screen that has room for more than must be said."""
STANDARD_SOURCES = {"card", "operator"}
HOLDS = "In force (UTC)"
NO_PRICES = "No prices yet: when `penstock up` starts, each model's card brings its first."


def models(
    held: list[Held[PriceVersion]], book: PriceBook, whose: str, at: datetime | None, columns: int
) -> Table:
    """Token prices of models, one line per version, for a screen of so many columns."""
    when = "" if at is None else f", as of {shown(at)} UTC"
    table = _table(f"Prices {whose}{when}")
    table.add_column("Model", overflow="fold", min_width=14)
    for unit in TOKENS:
        label = "Cached" if unit.name == "cached_input" else unit.label
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column(HOLDS, no_wrap=True)
    sources = {_source(each.price, book) for each in held}
    # A name that is not folded says more than which of two it was; a list of one's own says most.
    told = len(sources) > 1 and (columns >= WIDE or not sources <= STANDARD_SOURCES)
    if told:
        table.add_column("Set by", overflow="fold", min_width=8)
    last = ""
    for each in held:
        price, style = each.price, STYLES[each.status]
        cells = [price_units.usd_text(unit, getattr(price, unit.field)) for unit in TOKENS]
        cells += [_holds(each), *([_source(price, book)] if told else [])]
        # A model's further versions stand below its name.
        table.add_row(
            Text("" if price.model == last else price.model), *(Text(cell, style) for cell in cells)
        )
        last = price.model
    table.caption = "US dollars per 1M tokens." if held else NO_PRICES
    return table


def others(held: list[Held[PriceVersion]]) -> Table | None:
    """What models cost beside tokens; None where no model does."""
    table = _table("Beside tokens")
    table.add_column("Model", overflow="fold", min_width=14)
    table.add_column("US dollars", justify="right", no_wrap=True)
    table.add_column("per", no_wrap=True)
    table.add_column(HOLDS, no_wrap=True)
    for each in held:
        for amount, per in _beside_tokens(each.price):
            style = STYLES[each.status]
            table.add_row(
                Text(each.price.model), *(Text(cell, style) for cell in (amount, per, _holds(each)))
            )
    return table if table.row_count else None


def minutes(held: list[Held[MinutePriceVersion]], book: PriceBook, whose: str) -> Table:
    """What minutes cost."""
    table = _table(f"Minutes {whose}")
    table.add_column("Minute of", overflow="fold", min_width=14)
    for heading in ("USD/minute", "USD/hour"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(HOLDS, no_wrap=True)
    mixed = any(each.price.price_list_id != STANDARD_LIST for each in held)
    if mixed:
        table.add_column("List", overflow="fold")
    for each in held:
        price, style = each.price, STYLES[each.status]
        nano = price.nano_usd_per_minute
        cells = [price_units.usd_per_minute_text(nano), price_units.usd_per_minute_text(nano * 60)]
        cells += [_holds(each), *([price_history.list_name(book, price.price_list_id)] if mixed else [])]
        table.add_row(Text(f"{price.kind} {price.subject}"), *(Text(cell, style) for cell in cells))
    return table


def change(added: Added[PriceVersion], book: PriceBook, model: str) -> Table:
    """A model's prices before and after."""
    table = _table(model)
    table.add_column("US dollars per", overflow="fold")
    for heading in ("Before", "After", "Change"):
        table.add_column(heading, justify="right", no_wrap=True)
    before, after = added.before, added.after
    for unit in UNITS:
        old, new = getattr(before, unit.field, None), getattr(after, unit.field)
        if unit in TOKENS or old or new:
            label = f"{unit.label}, {unit.per}" if unit in TOKENS else unit.per
            texts = ("" if old is None else price_units.usd_text(unit, old), price_units.usd_text(unit, new))
            table.add_row(label, *texts, _change(old, new))
    old_ppm = 0 if before is None else before.batch_discount_ppm
    if old_ppm or after.batch_discount_ppm:
        texts = (price_units.discount_text(old_ppm), price_units.discount_text(after.batch_discount_ppm))
        table.add_row("Batch discount", *texts, "" if texts[0] == texts[1] else Text("changed", "yellow"))
    if before is not None and before.price_list_id != after.price_list_id:
        table.caption = f"Before: what the list {price_history.list_name(book, before.price_list_id)} says."
    return table


def minute_change(added: Added[MinutePriceVersion], book: PriceBook) -> Table:
    """A minute's price before and after."""
    before, after = added.before, added.after
    table = _table(f"{after.kind} {after.subject}")
    table.add_column("US dollars per")
    for heading in ("Before", "After", "Change"):
        table.add_column(heading, justify="right", no_wrap=True)
    old, new = None if before is None else before.nano_usd_per_minute, after.nano_usd_per_minute
    for per, times in (("minute", 1), ("hour", 60)):
        texts = ["" if nano is None else price_units.usd_per_minute_text(nano * times) for nano in (old, new)]
        table.add_row(per, *texts, _change(old, new))
    if before is not None and before.price_list_id != after.price_list_id:
        table.caption = f"Before: what the list {price_history.list_name(book, before.price_list_id)} says."
    return table


def lists(book: PriceBook, names: dict[int, str], at: datetime) -> Table:
    """The lists, what is on them and who pays by them."""
    table = _table("Price lists")
    table.add_column("List", overflow="fold", min_width=10)
    table.add_column("Prices", justify="right", no_wrap=True)
    table.add_column("Paid by", overflow="fold", ratio=2)
    table.add_column("Note", overflow="fold", ratio=2)
    for one in list_fields(book, names, at):
        scheduled = [f"{each['organisation']} from {shown(each['from'])}" for each in one["scheduled"]]
        standard = one["list"] == price_history.list_name(book, STANDARD_LIST)
        payers = "everybody else" if standard else ", ".join(one["organisations"]) or "nobody"
        table.add_row(one["list"], f"{one['prices']}", "\n".join([payers, *scheduled]), one["note"])
    table.caption = "What a list does not name costs what standard says."
    return table


def list_fields(book: PriceBook, names: dict[int, str], at: datetime) -> list[dict[str, Any]]:
    """The lists as JSON shows them."""
    by_list: dict[int, list[str]] = {}
    for organisation_id in sorted({each.organisation_id for each in book.assignments}):
        pays_by = book.list_id(organisation_id, at.timestamp())
        by_list.setdefault(pays_by, []).append(names.get(organisation_id, f"#{organisation_id}"))
    return [
        {
            "list": one.name,
            "note": one.note,
            "made": one.created_at,
            "prices": len(
                {each.model for each in book.versions if each.price_list_id == one.id}
                | {(each.kind, each.subject) for each in book.minute_versions if each.price_list_id == one.id}
            ),
            "organisations": by_list.get(one.id, []),
            "scheduled": [
                {
                    "organisation": names.get(each.organisation_id, f"#{each.organisation_id}"),
                    "from": each.valid_from,
                }
                for each in book.assignments
                if each.price_list_id == one.id and each.valid_from > at
            ],
        }
        for one in book.lists.values()
    ]


def assigned(assignment: Assignment | None, book: PriceBook) -> str:
    """The list that an assignment names."""
    return price_history.list_name(book, STANDARD_LIST if assignment is None else assignment.price_list_id)


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")


def _holds(held: Held[PriceVersion] | Held[MinutePriceVersion]) -> str:
    """From when on: the day for what is so, the time for what will be."""
    if held.status is Status.SCHEDULED:
        return f"scheduled {shown(held.since).removesuffix(' 00:00')}"
    if held.status is Status.PAST:
        return f"past {held.since:%Y-%m-%d %H:%M}"
    return f"since {held.since:%Y-%m-%d}"


def _source(price: PriceVersion, book: PriceBook) -> str:
    if price.price_list_id != STANDARD_LIST:
        return f"list {price_history.list_name(book, price.price_list_id)}"
    return "card" if price.origin == "card" else "operator"


def _beside_tokens(price: PriceVersion) -> list[tuple[str, str]]:
    found = [
        (price_units.usd_text(unit, getattr(price, unit.field)), unit.per)
        for unit in OTHERS
        if getattr(price, unit.field)
    ]
    if price.batch_discount_ppm:
        found.append((f"-{price_units.discount_text(price.batch_discount_ppm)}", "batch"))
    return found


def _change(old: int | None, new: int) -> Text:
    if old is None:
        return Text("new", "yellow")
    return Text(price_units.percent_change(old, new), "red" if new > old else "green")
