"""The task that keeps Postgres up with the journals: this process's own, and those of dead ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import socket
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg

from penstock_base import database
from penstock_billing import boots, frames, partitions, shipping
from penstock_billing.adoption import Adoption, ShipperState
from penstock_billing.errors import JournalBroken
from penstock_billing.journal import SUFFIX, Journal

logger = logging.getLogger(__name__)

GATHER_S = 0.1
"""Between an append and its shipment: more records for one transaction, and usage is still seen at once."""
SCAN_EVERY_S = 5.0
BACK_OFF_S = (0.1, 5.0)
"""First and longest pause while Postgres is away."""
KEEP = timedelta(hours=48)
"""A shipped file is kept so long: a database restored from an older backup is healed from it."""
SEEN_EVERY_S = 30.0
"""How often a process says in the database that it lives: for people, nothing is decided by it."""
COMMAND_TIMEOUT_S = 30.0

DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Whatever went wrong, the answer is the same: forget the connection, wait, ask the cursor, go on."""


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
        self._command_timeout_s = command_timeout_s
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._adoption = Adoption(folder, self.state, keep)
        self._scan_at_s = 0.0
        self._seen_at_s = -math.inf
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
                behind += self._journal.position - self._shipped_own
            else:
                behind += self._adoption.bytes_behind(path, known=self._wrote(path))
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
                await self._show_up(connection)
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
            self._adoption.forget()
            self._scan_at_s = 0.0
            self._seen_at_s = -math.inf
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

    async def _show_up(self, connection: asyncpg.Connection) -> None:
        """Say that this process lives. Raises JournalBroken when others count it as dead already."""
        journal = self._journal
        if journal is None or journal.closed or time.monotonic() < self._seen_at_s + SEEN_EVERY_S:
            return
        if await connection.fetchval(boots.SQL["show_up"], journal.boot_id.hex(), socket.gethostname()):
            raise JournalBroken(
                "this process was taken for dead and its credit may be lent to others, so it must end: "
                f"is {self._folder} shared with a machine that does not see its locks?"
            )
        self._seen_at_s = time.monotonic()

    async def _ship_own(self, connection: asyncpg.Connection) -> int:
        if self._journal is None:
            return 0
        if self._journal.part != self._part:
            # The part before is nobody's now: adopt it at once.
            self._part = self._journal.part
            self._scan_at_s = 0.0
        asked_at_s = time.monotonic()
        name, path, until = self._journal.name, self._journal.path, self._journal.position
        if self._shipped_own < until:
            count, _ = await self._adoption.ship(connection, name, path, until)
        else:
            count = 0
        if (position := self._adoption.shipped.get(path, frames.HEADER_BYTES)) < until:
            # The disk does not hold what was written: nothing behind can be trusted, so go on in a new file.
            if self._is_own_part(path):
                self._journal.rotate()
            self._adoption.quarantine(path, f"damaged at byte {position} of {until}")
        behind = self._journal.path != path or self._journal.position > until
        self._pending_since_s = asked_at_s if behind else None
        return count

    async def _adopt(self, connection: asyncpg.Connection) -> int:
        """Do what is to be done for dead processes, and for this one once its journal is closed."""
        journal = self._journal
        if journal is None:
            return await self._adoption.adopt(connection, None, set())
        whole = {journal.path} if journal.closed and self._shipped_own >= journal.position else set()
        return await self._adoption.adopt(connection, journal.path, whole)

    @property
    def _shipped_own(self) -> int:
        assert self._journal is not None
        return self._adoption.shipped.get(self._journal.path, frames.HEADER_BYTES)

    def _is_own_part(self, path: Path) -> bool:
        return self._journal is not None and path == self._journal.path

    def _wrote(self, path: Path) -> bool:
        return self._journal is not None and path.name.startswith(self._journal.boot_id.hex())

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
