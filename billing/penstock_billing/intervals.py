"""Running intervals: from when an endpoint or an instance was ready until it stopped, as facts in Postgres.

Minutes are derived from them (minutes.py), never from ticks. Every moment is told by the caller in UTC, so
that what happened while Postgres was away is written down later as it happened.

An instance has a holder: the start of a controller that vouches for it, by moving `seen_at`. When the holder
is gone, the interval ended at that last proof. An endpoint has none: it is ready until somebody says that it
stopped, whoever lives meanwhile.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.errors import IntervalRefused

SQL = queries.load("penstock_billing", "intervals.sql")


class IntervalKind(enum.StrEnum):
    """What ran."""

    ENDPOINT = "endpoint"
    """An endpoint, whose existing has a fee."""
    INSTANCE = "instance"
    """One engine on its slice of hardware."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What ran, for whom, and by which price."""

    kind: IntervalKind
    id: str
    """The endpoint's or replica's own id."""
    priced_as: str
    """The endpoint kind (serverless, online, batch) or the instance type, as minute prices name it."""
    organisation_id: int | None = None
    """Who pays; None for what the installation runs for everybody: our own cost, charged to nobody."""
    project_id: int = 0
    model: str = ""
    endpoint: str = ""
    """The endpoint that an instance ran for; empty for a pool."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """One row: the subject was ready from `started_at`, and is, or was until `stopped_at`."""

    id: int
    organisation_id: int | None
    project_id: int
    kind: IntervalKind
    subject: str
    priced_as: str
    model: str
    endpoint: str
    holder: str | None
    started_at: datetime
    seen_at: datetime
    stopped_at: datetime | None
    accrued_until: datetime
    """Minutes that begin before this are charged."""


def _interval(row: asyncpg.Record) -> Interval:
    columns = {name: row[name] for name in Interval.__struct_fields__}
    return Interval(**(columns | {"kind": IntervalKind(row["kind"])}))


def _utc(moment: datetime, name: str) -> datetime:
    if moment.tzinfo is None:
        raise IntervalRefused(f"{name} {moment} has no time zone; give it in UTC")
    return moment.astimezone(UTC)


async def open_interval(
    connection: asyncpg.Connection, subject: Subject, at: datetime, *, holder: str | None
) -> Interval:
    """Say that a subject is ready since `at`; once, however often and by however many it is said.

    With an interval of the same holder open, that one stands. One that another holder left open is stopped
    at its last proof first. None begins before the subject's last one ended. Raises IntervalRefused for an
    open one with other facts (who pays, what price), and for an instance without a holder.
    """
    at = _utc(at, "at")
    if subject.kind is IntervalKind.INSTANCE and holder is None:
        raise IntervalRefused(f"instance {subject.id} needs a holder: nobody would notice its end")
    async with connection.transaction():
        await connection.execute(SQL["lock_subject"], subject.kind.value, subject.id)
        there = await connection.fetchrow(SQL["open_of_subject"], subject.kind.value, subject.id)
        if there is not None and there["holder"] == holder:
            return _same(_interval(there), subject)
        if there is not None:
            await connection.execute(SQL["stop_at_last_proof"], there["id"])
        row = await connection.fetchrow(
            SQL["add"],
            subject.organisation_id,
            subject.project_id,
            subject.kind.value,
            subject.id,
            subject.priced_as,
            subject.model,
            subject.endpoint,
            holder,
            at,
        )
    assert row is not None
    return _interval(row)


async def see(
    connection: asyncpg.Connection, kind: IntervalKind, subjects: list[str], at: datetime, *, holder: str
) -> set[str]:
    """Vouch that subjects were ready all the time until `at`; returns those that are still held.

    One that is missing from the answer was taken over by another holder, and is not charged on.
    """
    async with connection.transaction():
        await connection.execute(SQL["see"], kind.value, subjects, holder, _utc(at, "at"))
        rows = await connection.fetch(SQL["held"], kind.value, holder)
    return {row["subject"] for row in rows} & set(subjects)


async def close_interval(
    connection: asyncpg.Connection, kind: IntervalKind, subject: str, at: datetime, *, holder: str | None
) -> Interval | None:
    """Say that a subject stopped at `at`; None where this holder has none open, so it may be said again.

    A moment before the last proof, or before what is charged, counts as that: what was charged stays charged.
    """
    async with connection.transaction():
        await connection.execute(SQL["lock_subject"], kind.value, subject)
        row = await connection.fetchrow(SQL["stop"], kind.value, subject, holder, _utc(at, "at"))
    return None if row is None else _interval(row)


async def close_abandoned(connection: asyncpg.Connection, holder: str) -> int:
    """Stop what other holders left open, each at its last proof; returns how many. For a new leader."""
    stopped = 0
    for row in await connection.fetch(SQL["abandoned"], holder):
        async with connection.transaction():
            await connection.execute(SQL["lock_subject"], row["kind"], row["subject"])
            there = await connection.fetchrow(SQL["open_of_subject"], row["kind"], row["subject"])
            if there is not None and there["id"] == row["id"]:
                await connection.execute(SQL["stop_at_last_proof"], row["id"])
                stopped += 1
    return stopped


async def open_subjects(connection: asyncpg.Connection | asyncpg.Pool, kind: IntervalKind) -> set[str]:
    """Ids of what is ready, as far as was said."""
    return {row["subject"] for row in await connection.fetch(SQL["open_subjects"], kind.value)}


async def between(
    connection: asyncpg.Connection | asyncpg.Pool,
    organisation_id: int | None,
    since: datetime,
    until: datetime,
) -> list[Interval]:
    """List an organisation's intervals that touch [since, until); with None, those that cost nobody."""
    rows = await connection.fetch(SQL["between"], organisation_id, _utc(since, "since"), _utc(until, "until"))
    return [_interval(row) for row in rows]


def _same(there: Interval, subject: Subject) -> Interval:
    told = (subject.organisation_id, subject.project_id, subject.priced_as)
    if (there.organisation_id, there.project_id, there.priced_as) != told:
        raise IntervalRefused(
            f"{subject.kind} {subject.id} is open for organisation {there.organisation_id}, project "
            f"{there.project_id}, priced as {there.priced_as!r}; stop it before it becomes {told}"
        )
    return there
