"""`penstock controller`: one controller process with its engines."""

from __future__ import annotations

import asyncio
import signal
import sys

import click

from penstock import settings
from penstock.observe import logs, sharing
from penstock_base import database


@click.command()
def command() -> None:
    """Start the engines and watch them until SIGTERM, then let them finish."""
    try:
        told = settings.read()
    except settings.SettingsError as error:
        click.echo(f"penstock controller: {error}", err=True)
        sys.exit(1)
    logs.configure("controller", told.log_level)
    sharing.share(told.metrics_folder)

    from penstock.control.controller import UnknownModelError  # noqa: PLC0415
    from penstock.control.leadership import LeadershipLostError  # noqa: PLC0415
    from penstock_catalog.errors import CardError  # noqa: PLC0415
    from penstock_engines.failures import EngineFailure  # noqa: PLC0415

    try:
        asyncio.run(_control(told))
    except (CardError, UnknownModelError, EngineFailure, LeadershipLostError) as error:
        click.echo(f"penstock controller: {error}", err=True)
        sys.exit(1)


async def _control(told: settings.Settings) -> None:
    from penstock.control.controller import Controller  # noqa: PLC0415
    from penstock_catalog.shelf import BUILTIN, Shelf  # noqa: PLC0415
    from penstock_engines.launch import choose_launcher  # noqa: PLC0415

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    shelf = Shelf.open([BUILTIN, *told.cards])
    async with await database.pool(told.database_url, "controller", size_max=4, command_timeout_s=10) as pool:
        launcher = choose_launcher(told.engines_folder)
        await Controller(told, shelf, launcher, pool).run(stop)
