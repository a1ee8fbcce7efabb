"""Reconciling a room as its controller would: what engines counted against what is charged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rig.check import oracle
from rig.room import Room
from rig.server import until

from penstock.control import reconciling
from penstock_billing.reconcile.report import Report
from penstock_engines import counters


async def reconcile(room: Room) -> Report:
    """Reconcile all of the room once everything has come to its end."""

    async def quiet() -> bool:
        made = await oracle([engine for engine in room.engines if engine.running])
        return not any(tally["outcome"] == "running" for tally in made.values())

    async def shipped() -> bool:
        return not await room.behind()

    await until(quiet, "every engine is done with every request")
    await until(shipped, "the journals are shipped to their ends")
    async with room.connect() as connection:
        for engine in room.engines:
            if engine.running and (sample := await counters.sample(engine.socket)) is not None:
                await counters.put(connection, engine.name, "m", sample)
        return await reconciling.reconcile(
            connection,
            journal_folder=room.journal,
            engines=reconciling.sockets(room.home / "engines"),
            until=datetime.now(UTC) + timedelta(minutes=1),
        )
