"""`penstock models`: the catalog, as cards say it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.cli import models_search
from penstock_catalog.cards import ModelCard
from penstock_catalog.errors import CardError
from penstock_catalog.shelf import BUILTIN, Shelf

CAPTION = (
    "The cards' prices, in US dollars per 1M tokens: input / cached / output.\n"
    "What is charged: `penstock prices show`."
)


@click.group()
def command() -> None:
    """Look at the catalog."""


@command.command("list")
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show_all(words: tuple[str, ...], as_json: bool) -> None:
    """List the models of the catalog, or those that have all WORDS."""
    cards = _shelf().search(" ".join(words))
    if as_json:
        click.echo(msgspec.json.encode(cards))
        return
    table = Table(title="Models", caption=CAPTION)
    table.add_column("Model", overflow="fold", ratio=2)
    table.add_column("Task")
    for heading in ("Size", "Context", "GPU GiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Prices", no_wrap=True)
    for card in cards:
        prices = f"{card.prices.input} / {card.prices.cached_input} / {card.prices.output}"
        table.add_row(
            card.id,
            card.task.value,
            _short(card.parameters),
            f"{card.context_length:,}",
            f"{card.gpu_memory_gib:g}",
            prices,
        )
    Console().print(table)


command.add_command(models_search.search)


@command.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def show(model: str, as_json: bool) -> None:
    """Show one model's card."""
    card = _shelf().get(model)
    if card is None:
        click.echo(f"penstock: no card for {model!r}; see `penstock models list`", err=True)
        sys.exit(1)
    if as_json:
        click.echo(msgspec.json.encode(card))
        return
    table = Table(title=card.name, show_header=False)
    for name, value in _facts(card).items():
        table.add_row(name, value)
    Console().print(table)


def _facts(card: ModelCard) -> dict[str, str]:
    return {
        "Id": card.id,
        "Summary": card.summary,
        "Task": f"{card.task.value}: {card.task.meaning}",
        "Capabilities": ", ".join(card.capabilities) or "none beyond its task",
        "Languages": ", ".join(card.languages),
        "Licence": f"{card.licence} {card.licence_url or ''}".strip(),
        "Parameters": f"{card.parameters:,}",
        "Context": f"{card.context_length:,} tokens",
        "Adapters": f"LoRA up to rank {card.engine.adapter_rank_max}"
        if card.engine.adapter_rank_max
        else "none",
        "GPU memory": f"{card.gpu_memory_gib:g} GiB",
        "Released": card.released.isoformat(),
        "Endpoints": ", ".join(card.endpoints),
        "The card's prices": f"input {card.prices.input}, cached input {card.prices.cached_input}, "
        f"output {card.prices.output} US dollars per 1M tokens; what is charged: `penstock prices show`",
        "Notes": card.notes or "none",
    }


def _shelf() -> Shelf:
    folders = [Path(part) for part in os.environ.get("PENSTOCK_CARDS", "").split(":") if part]
    try:
        return Shelf.open([BUILTIN, *folders])
    except CardError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


def _short(parameters: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6)):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters)
