"""`penstock models search`: the catalog as it is offered now: states, prices and measured speed."""

from __future__ import annotations

import sys

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys
from penstock.adapters.book import AdapterBook
from penstock.cli import database
from penstock.edge.api import model_questions, models
from penstock.edge.catalog import Catalog
from penstock.routing.directory import Directory
from penstock.settings import Settings
from penstock_billing import price_units
from penstock_billing.prices import NOBODY, PriceBook
from penstock_billing.speeds import SpeedBook
from penstock_catalog.cards import Capability, EndpointKind, Meaningful, Task
from penstock_catalog.errors import CardError
from penstock_catalog.search import Asked, Found, Size, Sort, State
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import pools, registry

OUTPUT = price_units.BY_NAME["output"]


def _words(vocabulary: type[Meaningful]) -> click.Choice[str]:
    return click.Choice([each.value for each in vocabulary])


@click.command()
@click.argument("words", nargs=-1)
@click.option("--state", multiple=True, type=_words(State), help="Any of these.")
@click.option("--task", multiple=True, type=_words(Task), help="Any of these.")
@click.option("--capability", multiple=True, type=_words(Capability), help="All of these.")
@click.option("--size", multiple=True, type=_words(Size), help="Any of these.")
@click.option("--licence", multiple=True, help="Any of these.")
@click.option("--endpoint", multiple=True, type=_words(EndpointKind), help="Any of these.")
@click.option("--context", help="At least so many tokens.")
@click.option("--price", help="At most so many dollars per 1M input tokens.")
@click.option("--sort", type=_words(Sort), default=Sort.RELEVANCE.value, show_default=True)
@click.option("--organisation", help="With the prices of this organisation; by default the standard ones.")
@click.option("--limit", type=click.IntRange(1, models.LIMIT_MAX), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, facets and their counts too.")
def search(
    words: tuple[str, ...],
    organisation: str | None,
    limit: int,
    as_json: bool,
    sort: str,
    **narrowed: tuple[str, ...] | str | None,
) -> None:
    """Find models by WORDS and by what they can do, cost and how they stand."""
    pairs = [("q", " ".join(words)), ("sort", sort)]
    for name, value in narrowed.items():
        given = value if isinstance(value, tuple) else (value,)
        pairs += [(name, each) for each in given if each is not None]
    asked, problems = model_questions.understand(pairs)
    for name, problem in problems:
        raise click.BadParameter(problem, param_hint=f"--{name}")

    async def work(told: Settings, connection: asyncpg.Connection) -> tuple[Catalog, int, Found]:
        organisation_id = NOBODY
        if organisation is not None:
            organisation_id = await keys.find_organisation(connection, organisation)
        catalog = await _catalog(told, connection)
        return catalog, organisation_id, catalog.search(organisation_id, asked)

    catalog, organisation_id, found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(models.answer(catalog, organisation_id, found, limit, 0)))
    elif not found.hits:
        click.echo(_ways_out(asked, found))
    else:
        Console().print(_table(found, limit))


async def _catalog(told: Settings, connection: asyncpg.Connection) -> Catalog:
    try:
        shelf = Shelf.open([BUILTIN, *told.cards])
    except CardError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    directory, prices, speeds = Directory(), PriceBook(), SpeedBook()
    directory.know(await pools.listed(connection), await pools.usual_starts_s(connection))
    directory.update(await registry.listed(connection))
    await prices.load(connection)
    await speeds.load(connection)
    return Catalog(shelf, directory, prices, AdapterBook(), speeds)


def _table(found: Found, limit: int) -> Table:
    shown, total = found.hits[:limit], len(found.hits)
    more = f"; {total - limit} more with --limit {total}" if total > limit else ""
    table = Table(
        title=f"{total} model{'' if total == 1 else 's'}"
        + (", none with just these words: these come closest" if found.mistaken else ""),
        caption=f"Prices in US dollars per 1M tokens; speed of the last 7 days{more}.",
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("Model", overflow="fold", ratio=2)
    table.add_column("State", no_wrap=True)
    for heading in ("Context", "In", "Out", "First", "Tok/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for hit in shown:
        one = hit.listed
        table.add_row(
            one.card.id,
            one.state.words,
            f"{one.card.context_length:,}",
            _usd(one.input_pico_usd),
            _usd(one.output_pico_usd),
            "-" if one.first_token_us is None else f"{one.first_token_us / 1000:,.0f} ms",
            "-" if one.tokens_per_s is None else f"{one.tokens_per_s:,.0f}",
        )
    return table


def _usd(pico_usd: int | None) -> str:
    return "-" if pico_usd is None else price_units.usd_text(OUTPUT, pico_usd)


def _ways_out(asked: Asked, found: Found) -> str:
    """What to leave out to find something."""
    ways = [f"without --{facet.value}: {count}" for facet, count in found.widened.items()]
    if found.any_text:
        ways.append(f"without {asked.text!r}: {found.any_text}")
    return "No model is like that" + (f"; {', '.join(ways)}." if ways else ": try fewer or other words.")
