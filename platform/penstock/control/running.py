"""What runs, recorded as it starts and stops, and charged by the minute (intervals.py, minutes.py)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import cast

import asyncpg
import msgspec

from penstock_billing import intervals, minutes
from penstock_billing.errors import IntervalRefused
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.prices import PriceBook
from penstock_billing.shipper import DATABASE_AWAY

logger = logging.getLogger(__name__)

SEE_EVERY_S = 10.0
"""How often instances are vouched for: by so much a killed controller's are charged too little, at most."""
FINISH_S = 5.0
CHARGE_EVERY_S = 300.0
CHARGE_UNTIL = timedelta(minutes=1)
"""Minutes are charged when they are this old, by the database's clock: every price of them is known then."""


class Told(msgspec.Struct, frozen=True):
    """Something that is to be written down, with the moment when it happened."""

    subject: Subject
    ready: bool
    at: datetime


class Running:
    """The instances of one controller; what it is told is written in order, now or when Postgres is back."""

    def __init__(self, pool: asyncpg.Pool, holder: str) -> None:
        """`holder` is this start of the controller, unlike any other."""
        self._pool = pool
        self._holder = holder
        self._pending: deque[Told] = deque()
        self._ready: dict[str, Subject] = {}
        self._told = asyncio.Event()
        self._turn = asyncio.Lock()
        self._book = PriceBook()

    async def begin(self) -> None:
        """End what controllers before left open, each at its last proof. Raises what asyncpg raises."""
        async with self._pool.acquire() as connection:
            stopped = await intervals.close_abandoned(cast("asyncpg.Connection", connection), self._holder)
        if stopped:
            logger.info("%d instances of a controller that is gone ended with it", stopped)

    def changed(self, subject: Subject, *, ready: bool) -> None:
        """Note that an instance is ready from now on, or not any more; again changes nothing, nor waits."""
        if ready == (subject.id in self._ready):
            return
        if ready:
            self._ready[subject.id] = subject
        else:
            del self._ready[subject.id]
        self._pending.append(Told(subject, ready, datetime.now(UTC)))
        self._told.set()

    async def write(self) -> None:
        """Write down what is not yet, and vouch for what is ready. Raises what asyncpg raises."""
        async with self._turn, self._pool.acquire() as pooled:
            connection = cast("asyncpg.Connection", pooled)
            while self._pending:
                await self._write_one(connection, self._pending[0])
                self._pending.popleft()
            # One moment for all, and nothing awaited since: what is in it was ready then.
            at, ready = datetime.now(UTC), sorted(self._ready)
            held = await intervals.see(connection, IntervalKind.INSTANCE, ready, at, holder=self._holder)
            for subject in set(ready) - held:
                logger.error("another controller took instance %s: it is not charged from here", subject)

    async def see(self) -> None:
        """Write down what is told, and vouch for what is ready, again and again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEE_EVERY_S):
                    await self._told.wait()
            self._told.clear()
            try:
                await self.write()
            except DATABASE_AWAY as error:
                logger.warning("instances are recorded later", extra={"reason": str(error)})

    async def finish(self) -> None:
        """Write down the last stops; what cannot be is ended by the next controller, at its last proof."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self.write()
        except DATABASE_AWAY as error:
            logger.warning("stops not recorded", extra={"reason": str(error)})

    async def charge(self) -> None:
        """Charge the minutes that are due, again and again; endpoints' too."""
        while True:
            try:
                await self.charge_once()
            except DATABASE_AWAY as error:
                logger.warning("minutes not charged", extra={"reason": str(error)})
            await asyncio.sleep(CHARGE_EVERY_S)

    async def charge_once(self) -> minutes.Accrual:
        """Charge the minutes that are due now."""
        async with self._pool.acquire() as pooled:
            connection = cast("asyncpg.Connection", pooled)
            until = await connection.fetchval("select clock_timestamp()") - CHARGE_UNTIL
            done = await minutes.accrue(connection, until, self._book)
        if done.unpriced_minutes:
            logger.warning("%d minutes had no price and are free", done.unpriced_minutes)
        return done

    async def _write_one(self, connection: asyncpg.Connection, told: Told) -> None:
        subject = told.subject
        try:
            if told.ready:
                await intervals.open_interval(connection, subject, told.at, holder=self._holder)
            else:
                await intervals.close_interval(
                    connection, subject.kind, subject.id, told.at, holder=self._holder
                )
        except IntervalRefused as error:
            logger.error("not recorded: %s", error)
