"""A controller as `penstock controller` runs it, but that its engines are simulated: a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from penstock import settings
from penstock.observe import logs, sharing


async def main(engine: dict[str, float]) -> None:
    """Control until SIGTERM; `engine` is how the engines behave."""
    told = settings.read()
    logs.configure("controller", told.log_level)
    sharing.share(told.metrics_folder)
    # The figures are made where they are shared, as the command does it.
    from penstock.control.controller import Controller
    from penstock_base import database
    from penstock_catalog.shelf import BUILTIN, Shelf
    from penstock_engines.simulated.launcher import SimulatedLauncher

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    shelf = Shelf.open([BUILTIN, *told.cards])
    async with await database.pool(told.database_url, "controller", size_max=4, command_timeout_s=10) as pool:
        await Controller(told, shelf, SimulatedLauncher(**engine), pool).run(stop)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
