"""What becomes of the files of dead processes: recovered, shipped, settled, and after a while deleted."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Set as AbstractSet
from datetime import timedelta
from pathlib import Path

import asyncpg
import msgspec

from penstock_billing import boots, frames, progress, shipping
from penstock_billing.boots import QUARANTINE_SUFFIX, locked
from penstock_billing.errors import JournalUnknownVersion, JournalUnreadable
from penstock_billing.journal import SUFFIX

logger = logging.getLogger(__name__)

BATCH_FRAMES = 4000
"""In one transaction when so many wait: a record costs a third less in batches of 4000 than of 1000."""


class ShipperState(msgspec.Struct):
    """What a shipper did since it started, for metrics; all but the first two are reasons to look."""

    frames: int = 0
    batches: int = 0
    conflicts: int = 0
    """Records that were in the database already: see `shipping.Shipment.conflicts`."""
    rejected: int = 0
    """Frames set aside in billing.rejected_frame."""
    torn_tails: int = 0
    """Dead files that end in an unfinished write, as a power cut leaves."""
    quarantined_files: int = 0
    """Damaged files that lie in the folder now, with frames that were acknowledged and are not billed."""
    recovered: int = 0
    """Streams that were under way when their gateway was killed, and are charged as it had noted them."""
    failures: int = 0
    """Rounds that failed in a row; 0 when the last one worked."""
    last_error: str | None = None
    """What the last failed round said; None when the last one worked."""


class Adoption:
    """One folder's journal files, how far they are shipped, and what is to be done with those of the dead.

    Every step may be the last of this process: what it leaves is what the next one finds and goes on from.
    """

    def __init__(self, folder: Path, state: ShipperState, keep: timedelta) -> None:
        self.shipped: dict[Path, int] = {}
        """How far each file is known to be in the database, in bytes."""
        self._folder = folder
        self._state = state
        self._keep = keep
        self._done: dict[Path, float] = {}
        """Dead files with nothing left to ship, and when (monotonic) they are to be looked at again."""
        self._settled: set[str] = set()
        """Processes of which the database knows that nothing more will come."""

    def forget(self) -> None:
        """Ask the database anew how far everything is: it may have been restored."""
        self.shipped.clear()
        self._done.clear()
        self._settled.clear()

    def bytes_behind(self, path: Path, *, known: bool) -> int:
        """Bytes of a dead process's file that are not in the database; `known` counts it though unseen."""
        if path in self._done or not (known or path in self.shipped):
            return 0
        try:
            return path.stat().st_size - self.shipped.get(path, 0)
        except FileNotFoundError:
            return 0

    async def ship(
        self, connection: asyncpg.Connection, name: str, path: Path, until: int | None
    ) -> tuple[int, timedelta]:
        """Ship a file as far as it is whole; returns the frames, and how long there have been no more."""
        count = 0
        while True:
            shipment = await shipping.ship(connection, name, path, until=until, limit=BATCH_FRAMES)
            self.shipped[path] = max(shipment.position, frames.HEADER_BYTES)
            count += shipment.frames
            self._count(name, shipment)
            if shipment.frames < BATCH_FRAMES:
                return count, timedelta() if count else shipment.idle

    async def adopt(self, connection: asyncpg.Connection, own: Path | None, whole: AbstractSet[Path]) -> int:
        """Do all that is to be done for dead processes; returns the frames that were shipped.

        `own` is the part that this process writes; `whole` holds it once it is closed and shipped.
        Raises what asyncpg raises.
        """
        begun_s = time.monotonic()
        await self._recover()
        count = 0
        for path in sorted(self._folder.glob("*" + SUFFIX)):
            if path == own or path in self._done:
                continue
            with locked(path) as dead:
                if dead:
                    count += await self._ship_dead(connection, path)
        self._state.quarantined_files = len(list(self._folder.glob("*" + QUARANTINE_SUFFIX)))
        await self._settle(connection, whole)
        await asyncio.to_thread(self._delete_old, begun_s)
        return count

    def quarantine(self, path: Path, problem: str) -> None:
        """Set a damaged file aside, for a person: what is whole before the damage is shipped already."""
        path.rename(path.with_name(path.name + QUARANTINE_SUFFIX))
        self._state.quarantined_files += 1
        logger.error("usage journal %s is set aside as %s: %s", path, QUARANTINE_SUFFIX, problem)

    async def _recover(self) -> None:
        """Make what dead processes noted of their streams a part of their journals."""
        for boot, remains in (await asyncio.to_thread(boots.look, self._folder)).items():
            if (path := remains.progress) is None or path in self._done:
                continue
            with locked(path) as dead:
                if not dead or not boots.gone(self._folder, boot):
                    continue
                try:
                    count = await asyncio.to_thread(progress.recover, path)
                except JournalUnknownVersion as error:
                    self._leave_alone(path, error)
                except OSError as error:
                    # It stays as it is for the next scan, and nothing else waits for it.
                    logger.error(
                        "what streams used before their gateway died is still in %s: %s", path, error
                    )
                else:
                    self._state.recovered += count
                    if count:
                        logger.warning("%d streams of the dead gateway %s are charged as noted", count, boot)

    async def _ship_dead(self, connection: asyncpg.Connection, path: Path) -> int:
        name = await self._identify(path)
        if name is None:
            return 0
        count, idle = await self.ship(connection, name, path, None)
        tail = await asyncio.to_thread(frames.judge, path, self.shipped[path])
        if tail is frames.Tail.CORRUPT:
            self.quarantine(path, f"damaged at byte {self.shipped[path]}, with whole records behind it")
            return count
        if tail is frames.Tail.TORN:
            self._state.torn_tails += 1
            logger.warning("usage journal %s ends in an unfinished write, as a power cut leaves", path)
        self._done[path] = time.monotonic() + (self._keep - idle).total_seconds()
        return count

    async def _identify(self, path: Path) -> str | None:
        """Read which journal a dead file is; None, and the file dealt with, when it cannot be shipped."""
        try:
            name = frames.read_name(path)
        except JournalUnknownVersion as error:
            self._leave_alone(path, error)
            return None
        except JournalUnreadable as error:
            self.quarantine(path, str(error))
            return None
        if name is None:
            if await asyncio.to_thread(frames.judge, path, 0) is frames.Tail.CLEAN:
                # A power cut took the file before anything was forced to the disk.
                await asyncio.to_thread(path.unlink)
            else:
                self.quarantine(path, "no header, but content behind it")
        return name

    async def _settle(self, connection: asyncpg.Connection, whole: AbstractSet[Path]) -> None:
        """Tell the database which processes are gone with all they wrote shipped."""
        whole = whole | {path for path in self._done if path in self.shipped}
        for boot, remains in (await asyncio.to_thread(boots.look, self._folder)).items():
            if boot in self._settled:
                continue
            if remains.quarantined and not remains.parts:
                await asyncio.to_thread(boots.mark, self._folder, boot)
            elif await asyncio.to_thread(boots.complete, self._folder, boot, whole):
                await connection.execute(boots.SQL["settle"], boot, socket.gethostname())
                self._settled.add(boot)
                for hidden in self._folder.glob(f"{boot}*{boots.HIDDEN_SUFFIX}"):
                    hidden.unlink(missing_ok=True)

    def _leave_alone(self, path: Path, problem: JournalUnknownVersion) -> None:
        logger.warning("%s", problem)
        self._done[path] = time.monotonic() + self._keep.total_seconds()

    def _delete_old(self, until_s: float) -> None:
        """Delete what was shipped long enough ago; the last parts of a process not before it is settled."""
        last = {
            path
            for boot, remains in boots.look(self._folder).items()
            if boot not in self._settled
            for path in remains.last_parts
        }
        for path, at_s in list(self._done.items()):
            if at_s > until_s or path in last:
                continue
            del self._done[path]
            if path in self.shipped:
                path.unlink(missing_ok=True)

    def _count(self, name: str, shipment: shipping.Shipment) -> None:
        if shipment.frames:
            self._state.frames += shipment.frames
            self._state.batches += 1
        if shipment.conflicts:
            self._state.conflicts += shipment.conflicts
            logger.error("journal %s: %d records were in Postgres already", name, shipment.conflicts)
        if shipment.rejected:
            self._state.rejected += shipment.rejected
            logger.error("journal %s: %d frames are in billing.rejected_frame", name, shipment.rejected)
