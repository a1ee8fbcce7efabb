"""Reconciling on this host: engines' receipts and journals with what Postgres says, hourly and on demand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from penstock.observe import reconcile_metrics
from penstock.settings import Settings
from penstock_base import database
from penstock_billing.reconcile import run
from penstock_billing.reconcile.engines import EngineBoot, Totals, Work
from penstock_billing.reconcile.report import Report
from penstock_billing.shipper import DATABASE_AWAY
from penstock_engines import counters, receipt_log
from penstock_engines.counters import Sample
from penstock_engines.replica import Replica, ReplicaState

logger = logging.getLogger(__name__)

EVERY_S = 3600.0
FIRST_AFTER_S = 60.0
"""A controller that was just started has other things to do first."""
AGAIN_AFTER_S = 60.0
SAMPLE_EVERY_S = 60.0
OVERLAP = timedelta(hours=1)
"""How much of what the last run looked at is looked at again: what came late is in it."""
WHOLE_EVERY = timedelta(days=1)
"""How often everything is compared, and not just the last hours."""
CLOSE_S = 5.0
LONGEST = timedelta(days=2)
"""Journals and receipts of longer ago are not kept."""


def sockets(engines_folder: Path) -> dict[str, Path]:
    """Where the engines of this host listen or listened, by replica."""
    if not engines_folder.is_dir():
        return {}
    return {folder.name: folder / "engine.sock" for folder in sorted(engines_folder.iterdir())}


def boots(engines: Mapping[str, Path], samples: Mapping[str, Sample], since: datetime) -> list[EngineBoot]:
    """Read what the engines' receipts tell since a moment; `engines` are sockets by replica."""
    since_ms = int(since.timestamp() * 1000)
    found = []
    for replica, socket in engines.items():
        for boot in receipt_log.boots(socket, since_ms):
            sample = samples.get(boot.boot)
            noted = boot.sums(sample.receipts) if sample is not None else None
            counted = (
                Totals(sample.input_tokens, sample.cached_tokens, sample.output_tokens)
                if sample is not None and noted is not None
                else None
            )
            works = [
                Work(
                    line.request_id,
                    line.ended_ms,
                    line.input_tokens,
                    line.cached_tokens,
                    line.output_tokens,
                    line.exchanges,
                    line.aborted,
                )
                for line in boot.lines(since_ms)
            ]
            found.append(
                EngineBoot(
                    replica=replica,
                    boot=boot.boot,
                    since_ms=boot.since_ms,
                    last_ms=boot.last_ms,
                    ended=boot.ended,
                    killed=boot.killed,
                    works=works,
                    counted=counted,
                    noted=Totals(*noted) if noted is not None else None,
                )
            )
    return found


async def reconcile(
    connection: asyncpg.Connection,
    *,
    journal_folder: Path,
    engines: Mapping[str, Path],
    since: datetime | None = None,
    until: datetime | None = None,
) -> Report:
    """Compare what happened in [since, until), by default everything that is settled.

    `engines` are the sockets of this host's engines by replica, also of those that are gone.
    """
    end = until or run.settled()
    samples = await counters.latest(connection)
    read = await asyncio.to_thread(boots, engines, samples, run.read_from(since, end))
    return await run.run(
        connection,
        since=since,
        until=end,
        journal_folder=journal_folder,
        boots=read,
    )


async def window(connection: asyncpg.Connection, now: datetime) -> datetime | None:
    """Say since when the next run looks: a bit before where the last one ended, or None for everything."""
    whole, last = await run.last(connection, whole=True), await run.last(connection)
    if whole is None or last is None or now - whole.began_at >= WHOLE_EVERY:
        return None
    return max(last.until, now - LONGEST) - OVERLAP


class Reconciling:
    """The controller's loops: sampling the engines' counters, and reconciling every hour."""

    def __init__(
        self, settings: Settings, pool: asyncpg.Pool, replicas: Callable[[], Mapping[str, Replica]]
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._replicas = replicas

    async def count(self) -> None:
        """Sample what the engines' own metrics say, now and then."""
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            for replica_id, replica in self._replicas().items():
                if replica.state is not ReplicaState.READY:
                    continue
                if (sample := await counters.sample(replica.socket)) is None:
                    continue
                try:
                    await counters.put(self._pool, replica_id, replica.spec.model, sample)
                except DATABASE_AWAY as error:
                    logger.warning("counters not kept", extra={"reason": str(error)})

    async def run(self) -> None:
        """Reconcile soon after the start, and then every hour."""
        pause_s = FIRST_AFTER_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.once()
                pause_s = EVERY_S
            except DATABASE_AWAY as error:
                logger.warning("not reconciled", extra={"reason": str(error)})
                pause_s = AGAIN_AFTER_S

    async def once(self) -> Report:
        """Reconcile what is due, tell Prometheus, and throw away receipts that are old enough."""
        now = datetime.now(UTC)
        # Not of the pool: its connections give up on what takes longer than a request should.
        connection = await database.connect(self._settings.database_url, "reconcile")
        try:
            report = await reconcile(
                connection,
                journal_folder=self._settings.journal_folder,
                engines=sockets(self._settings.engines_folder),
                since=await window(connection, now),
            )
            await counters.prune(connection, now)
        finally:
            await connection.close(timeout=CLOSE_S)
        await asyncio.to_thread(receipt_log.prune, self._settings.engines_folder)
        tell(report)
        return report


def tell(report: Report) -> None:
    """Show a report to Prometheus, and each difference in the log."""
    reconcile_metrics.DIFFERENCES.set(len(report.differences))
    reconcile_metrics.UNBILLED_REQUESTS.set(report.unbilled_requests)
    reconcile_metrics.LAST_SUCCESS.set(time.time())
    for one in report.differences:
        logger.error("reconcile: %s: %s is %s, expected %s", one.check, one.what, one.found, one.expected)
    logger.info(
        "reconciled %d events and %d requests of engines in %d ms: %d differences",
        report.examined.events,
        report.examined.engine_requests,
        report.took_ms,
        len(report.differences),
    )
