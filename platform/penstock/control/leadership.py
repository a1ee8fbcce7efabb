"""Which of several controllers leads: the one with an advisory lock in Postgres that shows that it lives.

The lock ends with its connection, so who was killed is followed at once. Who is stopped, or whose machine
hangs, keeps the connection: a leader therefore says something every half second, and one that is silent too
long has its session ended by those that stand by. While Postgres is away nobody leads and engines go on; when
it is back, the one that led goes first, because its engines run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from penstock_base import database, queries
from penstock_billing.shipper import DATABASE_AWAY

logger = logging.getLogger(__name__)

SQL = queries.load("penstock.control", "leadership.sql")

LEADER_LOCK = 7_306_001_114
"""Any constant: the advisory lock of the leading controller."""
BEAT_S = 0.5
"""How often a leader says something, and how often others look."""
SILENT_S = 3.0
"""Who leads and says nothing for so long is followed by another; with the looks, in under 5 s."""
PROMPT_S = 1.0
"""A look that took longer, or came so much too late, says more of Postgres or of us than of the leader."""
OUTAGE_S = 3.0
"""So long after an outage of Postgres the lock is left to the one that led before."""


class LeadershipLostError(Exception):
    """Another controller leads now; this one can only begin anew."""


@dataclass
class Silence:
    """How long a leader has been silent, as one that stands by can tell; the clock is handed in."""

    holder: tuple[int, float] | None = None
    """The leader's session, and when it last said something."""
    since_s: float = 0.0
    last_s: float = 0.0

    def look(self, holder: tuple[int, float] | None, began_s: float, now_s: float) -> float:
        """Take in what was seen of the leader by a look from `began_s` to `now_s`; its silence in seconds."""
        late = now_s - began_s > PROMPT_S or began_s - self.last_s > BEAT_S + PROMPT_S
        if holder != self.holder or late:
            self.holder, self.since_s = holder, now_s
        self.last_s = now_s
        return now_s - self.since_s if holder is not None else 0.0


class Leadership:
    """One controller's part in it."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: asyncpg.Connection | None = None

    async def gain(self, stop: asyncio.Event) -> bool:
        """Stand by until nobody else leads; False when told to stop before."""
        silence, away_until_s, said = Silence(), 0.0, False
        while not stop.is_set():
            began_s = time.monotonic()
            try:
                if self._connection is None:
                    self._connection = await self._connect()
                if began_s >= away_until_s:
                    if await self._locked():
                        return True
                    if not said:
                        logger.info("another controller leads: standing by")
                        said = True
                    await self._watch(silence, began_s)
            except DATABASE_AWAY as error:
                logger.warning("the database is away", extra={"reason": str(error)})
                away_until_s = time.monotonic() + OUTAGE_S
                self._drop()
            await _pause(stop)
        await self.leave()
        return False

    async def keep(self, regained: Callable[[], object]) -> None:
        """Show that we live; returns when another one leads.

        `regained` is called when we lead on after an outage of Postgres.
        """
        away = False
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._connect()
                    if not await self._locked():
                        logger.error("another controller leads now")
                        return
                else:
                    await self._connection.execute(SQL["beat"])
                if away:
                    logger.info("the database answers: this controller leads on")
                    regained()
                away = False
            except DATABASE_AWAY as error:
                if not away:
                    logger.warning("the database is away", extra={"reason": str(error)})
                away = True
                self._drop()
            await asyncio.sleep(BEAT_S)

    async def leave(self) -> None:
        """Lead no more: the lock ends with the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*DATABASE_AWAY):
                await connection.close(timeout=5)

    async def _connect(self) -> asyncpg.Connection:
        connection = await database.connect(self._url, "leader")
        try:
            await connection.execute(SQL["as_owner"])
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _locked(self) -> bool:
        assert self._connection is not None
        return bool(await self._connection.fetchval(SQL["lock"], LEADER_LOCK))

    async def _watch(self, silence: Silence, began_s: float) -> None:
        """Look at who leads, and end the session of one that is silent too long."""
        assert self._connection is not None
        row = await self._connection.fetchrow(SQL["holder"], LEADER_LOCK)
        holder = (row["pid"], row["spoke_s"]) if row is not None else None
        if silence.look(holder, began_s, time.monotonic()) >= SILENT_S and holder is not None:
            logger.warning("the leading controller is silent: its session is ended")
            await self._connection.execute(SQL["end"], holder[0])

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BEAT_S):
            await stop.wait()
