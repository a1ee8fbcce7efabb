"""`penstock up`: run everything on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys

import click

from penstock import settings
from penstock.local import problems, steps
from penstock.local import up as local_up
from penstock_base import migrations
from penstock_catalog.errors import CardError

INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended before it was done."""


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, envvar="PENSTOCK_HOST", help="Address to serve."
)
@click.option(
    "--port", default=8088, show_default=True, envvar="PENSTOCK_PORT", type=click.IntRange(0, 65535)
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    envvar="PENSTOCK_WORKERS",
    type=click.IntRange(1, 64),
    help="Gateway processes; one serves thousands of streams.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON line when ready: base_url, api_key, portal_url, portal_email, portal_password, pid.",
)
@click.option(
    "--ready-within",
    default=1800.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds until giving up; models from a hub are downloaded in this time.",
)
def command(host: str, port: int, workers: int, as_json: bool, ready_within: float) -> None:
    """Run database, gateway, controller and engines on this machine until Ctrl-C.

    Data is kept in PENSTOCK_HOME (default: ~/.local/state/penstock). PENSTOCK_DATABASE_URL and
    PENSTOCK_REDIS_URL use servers of your own instead of the embedded ones. With --json every start makes a
    new API key named "up --json"; without, the key is shown at the first start only, as the password of the
    portal's first account is.
    """
    options = local_up.Options(host, port, workers, as_json, ready_within)
    try:
        ready = asyncio.run(local_up.run(options, steps.Steps(), _say))
    except (problems.LocalError, settings.SettingsError, migrations.MigrationError, CardError) as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(1)
    sys.exit(0 if ready else INTERRUPTED)


def _say(text: str) -> None:
    """Print the result whole: no colours or line breaks that would spoil what is pasted."""
    click.echo(text)
