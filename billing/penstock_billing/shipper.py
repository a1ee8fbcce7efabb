"""The task that keeps Postgres up with the journals: this process's own, and those of dead ones."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec

from penstock_base import database
from penstock_billing import frames, partitions, shipping
from penstock_billing.errors import JournalUnknownVersion, JournalUnreadable
from penstock_billing.journal import SUFFIX, Journal

logger = logging.getLogger(__name__)

BATCH_FRAMES = 1000
GATHER_S = 0.1
"""Between an append and its shipment: more records for one transaction, and usage is still seen at once."""
SCAN_EVERY_S = 5.0
BACK_OFF_S = (0.1, 5.0)
"""First and longest pause while Postgres is away."""
KEEP = timedelta(hours=48)
"""A shipped file is kept so long: a database restored from an older backup is healed from it."""
QUARANTINE_SUFFIX = ".quarantined"
COMMAND_TIMEOUT_S = 30.0

DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Whatever went wrong, the answer is the same: forget the connection, wait, ask the cursor, go on."""


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
    failures: int = 0
    """Rounds that failed in a row; 0 when the last one worked."""
    last_error: str | None = None
    """What the last failed round said; None when the last one worked."""


class Shipper:
    """Ships the journals of one folder. `run` for as long as the process lives, then `drain` and `close`."""

    def __init__(
        self,
        database_url: str,
        folder: Path,
        journal: Journal | None = None,
        *,
        keep: timedelta = KEEP,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        """`journal` is this process's own, in `folder`; without one, only files of the dead are shipped."""
        self.state = ShipperState()
        self._database_url = database_url
        self._folder = folder
        self._journal = journal
        self._keep = keep
        self._command_timeout_s = command_timeout_s
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._shipped: dict[Path, int] = {}
        self._look_again_s: dict[Path, float] = {}
        """Dead files with nothing left to ship, and when (monotonic) they may be deleted."""
        self._scan_at_s = 0.0
        self._part = 0
        self._pending_since_s: float | None = None
        self._partitions_for: date | None = None

    @property
    def bytes_behind(self) -> int:
        """Bytes of journal that are not known to be in Postgres: this process's, and files it adopted."""
        behind = 0
        for path in self._folder.glob("*" + SUFFIX):
            if self._is_own_part(path):
                assert self._journal is not None
                behind += self._journal.position - self._shipped.get(path, frames.HEADER_BYTES)
            elif path not in self._look_again_s and (path in self._shipped or self._wrote(path)):
                with contextlib.suppress(FileNotFoundError):
                    behind += path.stat().st_size - self._shipped.get(path, 0)
        return behind

    @property
    def oldest_unshipped_s(self) -> float:
        """Upper bound of the seconds that an appended record has been waiting; 0 when none is."""
        return 0.0 if self._pending_since_s is None else time.monotonic() - self._pending_since_s

    async def run(self) -> None:
        """Ship until cancelled, however often Postgres goes away."""
        while True:
            if not self.state.failures:
                await self._wait()
            try:
                await self.ship_once()
            except DATABASE_AWAY as error:
                await asyncio.sleep(self._note_failure(error))

    async def ship_once(self) -> int:
        """Ship all that is waiting, and look for dead processes' files when it is time; returns the frames.

        Raises one of DATABASE_AWAY; then the next call goes on where the database stands.
        """
        async with self._turn:
            try:
                connection = await self._connected()
                count = await self._ship_own(connection)
                if time.monotonic() >= self._scan_at_s:
                    count += await self._adopt(connection)
                    self._scan_at_s = time.monotonic() + SCAN_EVERY_S
            except BaseException:
                self._forget_connection()
                raise
            self.state.failures = 0
            self.state.last_error = None
            return count

    async def drain(self, timeout_s: float) -> bool:
        """Ship what is left before the process ends; False when it takes longer, and then another will."""
        self._scan_at_s = 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self.ship_once()
                    except DATABASE_AWAY as error:
                        await asyncio.sleep(self._note_failure(error))
                    else:
                        if not self.bytes_behind:
                            return True
                        self._scan_at_s = 0.0
                        await asyncio.sleep(BACK_OFF_S[0])
        return False

    async def close(self) -> None:
        """Close the connection."""
        async with self._turn:
            if self._connection is not None:
                with contextlib.suppress(*DATABASE_AWAY):
                    await self._connection.close(timeout=5)
                self._forget_connection()

    async def _wait(self) -> None:
        """Until there is something to ship, plus a moment for more of it, or until it is time to scan."""
        timeout_s = max(0.0, self._scan_at_s - time.monotonic())
        if self._journal is None:
            await asyncio.sleep(timeout_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._journal.appended.wait()
                if self._pending_since_s is None:
                    self._pending_since_s = time.monotonic()
            await asyncio.sleep(GATHER_S)
            self._journal.appended.clear()

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await database.connect(
                self._database_url, "shipper", timeout_s=5, command_timeout=self._command_timeout_s
            )
            await shipping.prepare(self._connection)
            # The database may have been restored meanwhile: how far it is is for its cursors to say.
            self._shipped.clear()
            self._look_again_s.clear()
            self._scan_at_s = 0.0
        today = datetime.now(UTC).date()
        if self._partitions_for != today:
            with contextlib.suppress(asyncpg.LockNotAvailableError):  # a long reader: tried again next round
                await partitions.ensure(self._connection)
                self._partitions_for = today
        return self._connection

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ship_own(self, connection: asyncpg.Connection) -> int:
        if self._journal is None:
            return 0
        if self._journal.part != self._part:
            # The part before is nobody's now: adopt it at once.
            self._part = self._journal.part
            self._scan_at_s = 0.0
        asked_at_s = time.monotonic()
        name, path, until = self._journal.name, self._journal.path, self._journal.position
        if self._shipped.get(path, frames.HEADER_BYTES) < until:
            count, _ = await self._ship_file(connection, name, path, until)
        else:
            count = 0
        if (position := self._shipped.get(path, frames.HEADER_BYTES)) < until:
            # The disk does not hold what was written: nothing behind can be trusted, so go on in a new file.
            if self._is_own_part(path):
                self._journal.rotate()
            self._quarantine(path, f"damaged at byte {position} of {until}")
        behind = self._journal.path != path or self._journal.position > until
        self._pending_since_s = asked_at_s if behind else None
        return count

    async def _ship_file(
        self, connection: asyncpg.Connection, name: str, path: Path, until: int | None
    ) -> tuple[int, timedelta]:
        """Ship a file as far as it is whole; returns the frames, and how long there have been no more."""
        count = 0
        while True:
            shipment = await shipping.ship(connection, name, path, until=until, limit=BATCH_FRAMES)
            self._shipped[path] = max(shipment.position, frames.HEADER_BYTES)
            count += shipment.frames
            self._count(name, shipment)
            if shipment.frames < BATCH_FRAMES:
                return count, timedelta() if count else shipment.idle

    async def _adopt(self, connection: asyncpg.Connection) -> int:
        """Ship the files whose process is gone, and delete those that were done with long enough ago."""
        count = 0
        for path in sorted(self._folder.glob("*" + SUFFIX)):
            if self._is_own_part(path) or self._look_again_s.get(path, 0.0) > time.monotonic():
                continue
            with locked(path) as dead:
                if dead:
                    count += await self._adopt_file(connection, path)
        self.state.quarantined_files = len(list(self._folder.glob("*" + QUARANTINE_SUFFIX)))
        return count

    async def _adopt_file(self, connection: asyncpg.Connection, path: Path) -> int:
        name = await self._identify(path)
        if name is None:
            return 0
        count, idle = await self._ship_file(connection, name, path, None)
        tail = await asyncio.to_thread(frames.judge, path, self._shipped[path])
        if tail is frames.Tail.CORRUPT:
            self._quarantine(path, f"damaged at byte {self._shipped[path]}, with whole records behind it")
            return count
        if tail is frames.Tail.TORN and path not in self._look_again_s:
            self.state.torn_tails += 1
            logger.warning("usage journal %s ends in an unfinished write, as a power cut leaves", path)
        if idle > self._keep:
            await asyncio.to_thread(path.unlink)
            return count
        self._look_again_s[path] = time.monotonic() + (self._keep - idle).total_seconds()
        return count

    async def _identify(self, path: Path) -> str | None:
        """Read which journal a dead file is; None, and the file dealt with, when it cannot be shipped."""
        try:
            name = frames.read_name(path)
        except JournalUnknownVersion as error:
            logger.warning("%s", error)
            self._look_again_s[path] = time.monotonic() + self._keep.total_seconds()
            return None
        except JournalUnreadable as error:
            self._quarantine(path, str(error))
            return None
        if name is None:
            if await asyncio.to_thread(frames.judge, path, 0) is frames.Tail.CLEAN:
                # A power cut took the file before anything was forced to the disk.
                await asyncio.to_thread(path.unlink)
            else:
                self._quarantine(path, "no header, but content behind it")
        return name

    def _is_own_part(self, path: Path) -> bool:
        return self._journal is not None and path == self._journal.path

    def _wrote(self, path: Path) -> bool:
        return self._journal is not None and path.name.startswith(self._journal.boot_id.hex())

    def _count(self, name: str, shipment: shipping.Shipment) -> None:
        if shipment.frames:
            self.state.frames += shipment.frames
            self.state.batches += 1
        if shipment.conflicts:
            self.state.conflicts += shipment.conflicts
            logger.error("journal %s: %d records were in Postgres already", name, shipment.conflicts)
        if shipment.rejected:
            self.state.rejected += shipment.rejected
            logger.error("journal %s: %d frames are in billing.rejected_frame", name, shipment.rejected)

    def _quarantine(self, path: Path, problem: str) -> None:
        """Set a damaged file aside, for a person: what is whole before the damage is shipped already."""
        path.rename(path.with_name(path.name + QUARANTINE_SUFFIX))
        self.state.quarantined_files += 1
        logger.error("usage journal %s is set aside as %s: %s", path, QUARANTINE_SUFFIX, problem)

    def _note_failure(self, error: BaseException) -> float:
        """Remember what went wrong; returns the seconds to wait, longer each time, never quite the same."""
        first_s, longest_s = BACK_OFF_S
        pause_s = min(longest_s, first_s * 2.0 ** min(self.state.failures, 16))
        self.state.failures += 1
        while isinstance(error, asyncpg.InterfaceError) and error.__context__ is not None:
            error = error.__context__  # that a dead connection cannot be tidied up hides how it died
        self.state.last_error = f"{type(error).__name__}: {error}"
        if self.state.failures == 1:
            logger.warning("usage is not shipped, the journal keeps it: %s", self.state.last_error)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, protects nothing


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Take a journal file whose process is gone; False when it lives, or another shipper is at the file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # Renamed or deleted between opening and locking: it was another's turn.
        yield path.exists() and os.path.samestat(os.fstat(file), path.stat())
    finally:
        os.close(file)
