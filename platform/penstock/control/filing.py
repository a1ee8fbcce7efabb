"""The controller's loop that moves old events to files."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from penstock.settings import Settings
from penstock_base import database
from penstock_billing import archive
from penstock_billing.errors import ArchiveError, ArchiveUnavailable
from penstock_billing.shipper import DATABASE_AWAY

logger = logging.getLogger(__name__)

EVERY_S = 3600.0


async def file_old_events(settings: Settings, every_s: float = EVERY_S) -> None:
    """Move the days that are older than the retention to files, as they become so, for ever."""
    while settings.events_retention_days:
        try:
            await file_due(settings)
        except ArchiveUnavailable as error:
            logger.warning("old events stay in the database: %s", error)
        except (ArchiveError, *DATABASE_AWAY) as error:
            logger.error("old events are not filed; they stay in the database", extra={"reason": str(error)})
        await asyncio.sleep(every_s)


async def file_due(settings: Settings) -> list[archive.File]:
    """Move what is due, the oldest day first; raises what `archive.file_day` raises."""
    filed = []
    # A connection of its own: a large day takes longer than the pool's connections wait.
    connection = await database.connect(settings.database_url, "archive")
    try:
        for day in await archive.due(connection, settings.events_retention_days, datetime.now(UTC).date()):
            made = await archive.file_day(connection, settings.archive_folder, day)
            if made is not None:
                logger.info("%d events of %s are in %s now", made.events, day, made.file)
                filed.append(made)
    finally:
        await connection.close()
    return filed
