"""Differences made on purpose: each is found, and named with its request. Honest books have none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest

from penstock_base import database as databases
from penstock_billing import frames, intervals, minutes
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.invariants import Check
from penstock_billing.journal import Journal
from penstock_billing.reconcile import run
from penstock_billing.reconcile.engines import EngineBoot, Totals, Work
from penstock_billing.reconcile.report import Compared, Report
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.shipper import Shipper
from penstock_billing.unrecorded import Unrecorded

LATER = timedelta(minutes=1)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def work(record: UsageRecord, **changes: object) -> Work:
    told = Work(
        record.request_id,
        record.ended_ms,
        record.input_tokens,
        record.cached_tokens,
        record.output_tokens,
        1,
        record.outcome is Outcome.CLIENT_GONE,
    )
    return msgspec.structs.replace(told, **changes)


def boot(works: Sequence[Work], replica: str = "demo-chat-0", **changes: object) -> EngineBoot:
    told = EngineBoot(
        replica=replica, boot="b1", since_ms=now_ms() - 3_600_000, last_ms=now_ms(), ended=True, works=works
    )
    return msgspec.structs.replace(told, **changes)


class Books:
    """A journal with its records in Postgres, and engines that counted the same."""

    def __init__(
        self,
        url: str,
        database: asyncpg.Pool,
        journal: Journal,
        shipper: Shipper,
        make: Callable[..., UsageRecord],
    ) -> None:
        self.url, self.database, self.journal, self.shipper, self.make = url, database, journal, shipper, make
        self.records: list[UsageRecord] = []

    def append(self, **changes: object) -> UsageRecord:
        self.records.append(self.make(**changes))
        self.journal.append(self.records[-1])
        return self.records[-1]

    async def fill(self) -> None:
        for outcome in Outcome:
            for _ in range(5):
                self.append(outcome=outcome)
        await self.shipper.ship_once()

    @property
    def works(self) -> list[Work]:
        return [work(one) for one in self.records]

    async def tamper(self, statement: str, *arguments: object) -> None:
        """As somebody who owns the database, past every trigger."""
        async with self.database.acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(statement, *arguments)

    async def reconcile(
        self, works: Sequence[Work] | None = None, *, since: datetime | None = None, **changes: object
    ) -> Report:
        """Reconcile as a running process may: with the role of one."""
        connection = await databases.connect(self.url, "test")
        try:
            return await run.run(
                connection,
                since=since,
                until=datetime.now(UTC) + LATER,
                journal_folder=self.journal.folder,
                boots=[boot(self.works if works is None else works, **changes)],
            )
        finally:
            await connection.close()


@pytest.fixture
async def books(
    database_url: str,
    database: asyncpg.Pool,
    journal: Journal,
    shipper: Shipper,
    make: Callable[..., UsageRecord],
) -> Books:
    filled = Books(database_url, database, journal, shipper, make)
    await filled.fill()
    return filled


def found(report: Report) -> dict[str, set[str]]:
    """The requests named by each check that found something."""
    named: dict[str, set[str]] = {}
    for one in report.differences:
        named.setdefault(one.check, set()).update(one.requests)
    return named


async def test_honest_books_have_no_difference_and_show_what_is_free(books: Books) -> None:
    for since in (None, datetime.now(UTC) - timedelta(hours=2)):
        report = await books.reconcile(since=since)
        assert report.differences == []
        assert report.examined.events == report.examined.journal_records == len(books.records)
        worked = [one for one in books.records if one.input_tokens + one.output_tokens]
        assert report.examined.engine_requests >= len(worked)
        free = {one.request_id for one in worked if not one.outcome.billable}
        assert {one.request_id for one in report.unbilled} == free
        assert report.unbilled_requests == len(free)
        assert not report.in_flight.journal_records
    assert await books.database.fetchval("select count(*) from billing.reconcile_run") == 2


async def test_what_is_not_shipped_yet_is_in_flight_and_no_difference(books: Books) -> None:
    books.append(outcome=Outcome.DONE)
    report = await books.reconcile()
    assert report.differences == []
    assert report.in_flight.journal_records == 1


async def test_a_deleted_event_is_named_by_its_journal(books: Books) -> None:
    lost = next(one for one in books.records if one.cost_nano_usd)
    await books.tamper("delete from billing.usage_event where request_id = $1", lost.request_id)
    report = await books.reconcile()
    assert found(report)[Compared.SHIPPED_IS_THERE] == {lost.request_id}
    assert found(report)[Check.ROLL_UPS_ARE_SUMS] == {lost.request_id}
    assert found(report)[Check.BOOKINGS_ARE_EVENTS] == {lost.request_id}
    # The engine's count of it has no record either.
    assert found(report)[Compared.WORK_IS_RECORDED] == {lost.request_id}


async def test_a_changed_event_is_named(books: Books) -> None:
    changed = next(r for r in books.records if r.outcome is Outcome.DONE and r.model == "penstock/demo-chat")
    await books.tamper(
        "update billing.usage_event set output_tokens = output_tokens + 1 where request_id = $1",
        changed.request_id,
    )
    report = await books.reconcile()
    assert found(report)[Compared.EVENTS_ARE_RECORDS] == {changed.request_id}
    assert found(report)[Compared.RECORDS_ARE_COUNTS] == {changed.request_id}
    assert changed.request_id in found(report)[Check.COSTS_ARE_REPRODUCED]


async def test_a_changed_roll_up_names_the_requests_that_belong_into_it(books: Books) -> None:
    one = books.records[0]
    await books.tamper(
        "update billing.usage_minute set requests = requests + 1 "
        "where organisation_id = $1 and model = $2 and outcome = $3",
        one.organisation_id,
        one.model,
        one.outcome.value,
    )
    report = await books.reconcile()
    assert set(found(report)) == {Check.ROLL_UPS_ARE_SUMS}
    alike = {
        other.request_id
        for other in books.records
        if (other.organisation_id, other.model, other.outcome)
        == (one.organisation_id, one.model, one.outcome)
    }
    assert found(report)[Check.ROLL_UPS_ARE_SUMS] == alike


async def test_a_transaction_without_events_is_found(books: Books) -> None:
    await books.database.execute(
        """with booked as (
             insert into billing.ledger_transaction (ref, kind, period_start, period_end)
             values ('ship:nowhere:1', 'usage', now(), now()) returning id
           ), posted as (
             insert into billing.account as account (organisation_id, kind, posted_nano_usd)
             values (1, 'revenue', -5), (1, 'receivable', 5)
             on conflict (organisation_id, project_id, kind)
             do update set posted_nano_usd = account.posted_nano_usd + excluded.posted_nano_usd
             returning id, kind
           )
           insert into billing.entry select booked.id, posted.id, case kind when 'revenue' then -5 else 5 end
           from booked, posted"""
    )
    report = await books.reconcile()
    assert set(found(report)) == {Check.BOOKINGS_ARE_EVENTS, Check.REVENUE_IS_USAGE}


async def test_a_record_that_the_shipper_skipped_is_named(books: Books) -> None:
    lost = books.append(outcome=Outcome.DONE)
    await books.tamper("update billing.journal_cursor set shipped_bytes = $1", books.journal.position)
    report = await books.reconcile()
    assert found(report)[Compared.SHIPPED_IS_THERE] == {lost.request_id}


async def test_a_lost_journal_record_is_named_by_its_engine(books: Books) -> None:
    never_written = books.make(outcome=Outcome.DONE, input_tokens=120, cached_tokens=0, output_tokens=35)
    report = await books.reconcile([*books.works, work(never_written)])
    assert found(report) == {Compared.WORK_IS_RECORDED: {never_written.request_id}}
    (one,) = report.differences
    assert one.found == "no record"
    assert one.expected == "120 input (0 cached), 35 output counted"


@pytest.mark.parametrize("more", [{"output_tokens": 1}, {"input_tokens": 1}, {"cached_tokens": -1}])
async def test_an_engine_that_counted_otherwise_is_named_with_the_request(
    books: Books, more: dict[str, int]
) -> None:
    one = next(r for r in books.records if r.outcome is Outcome.CLIENT_GONE and r.cached_tokens)
    ((name, step),) = more.items()
    works = [each for each in books.works if each.request_id != one.request_id]
    counted = work(one, **{name: getattr(one, name) + step})
    assert found(await books.reconcile([*works, counted])) == {Compared.RECORDS_ARE_COUNTS: {one.request_id}}


async def test_a_charge_that_no_engine_worked_for_is_named(books: Books) -> None:
    charged = next(one for one in books.records if one.outcome is Outcome.DONE)
    works = [each for each in books.works if each.request_id != charged.request_id]
    assert found(await books.reconcile(works)) == {Compared.RECORDS_HAVE_WORK: {charged.request_id}}
    # Engines elsewhere have no receipts here, and one that was killed takes its last seconds' with it.
    assert found(await books.reconcile(works, replica="elsewhere")) == {}
    assert found(await books.reconcile(works, ended=False)) == {}


async def test_totals_that_are_not_the_sum_of_the_receipts_are_told(books: Books) -> None:
    report = await books.reconcile(counted=Totals(10, 0, 6), noted=Totals(10, 0, 5))
    (one,) = report.differences
    assert (one.check, one.found, one.expected) == (
        Compared.COUNTERS_ARE_RECEIPTS,
        "10 input (0 cached), 6 output",
        "10 input (0 cached), 5 output",
    )


async def test_what_recovery_and_repeated_tries_leave_is_unbilled_and_no_difference(books: Books) -> None:
    recovered = next(one for one in books.records if one.outcome is Outcome.RECOVERED)
    tried = next(one for one in books.records if one.outcome is Outcome.DONE)
    works = [w for w in books.works if w.request_id not in {recovered.request_id, tried.request_id}]
    works.append(work(recovered, output_tokens=recovered.output_tokens + 7))
    works.append(work(tried, input_tokens=2 * tried.input_tokens, exchanges=2))
    report = await books.reconcile(works)
    assert report.differences == []
    rest = {one.request_id: (one.input_tokens, one.output_tokens) for one in report.unbilled}
    assert rest[recovered.request_id] == (0, 7)
    assert rest[tried.request_id] == (tried.input_tokens, 0)


async def test_what_the_slower_one_of_two_engines_did_is_unbilled(books: Books) -> None:
    hedged = books.append(outcome=Outcome.DONE, hedged=True)
    waiting = [*books.works, work(hedged, input_tokens=2 * hedged.input_tokens, exchanges=2)]
    works = [one for one in waiting if one != work(hedged)]
    for _ in range(2):
        # First from the journal, then as an event.
        report = await books.reconcile(works)
        assert report.differences == []
        (rest,) = [one for one in report.unbilled if one.request_id == hedged.request_id]
        assert (rest.input_tokens, rest.output_tokens) == (hedged.input_tokens, 0)
        assert rest.reason.startswith("hedged: ")
        await books.shipper.ship_once()


async def test_what_a_killed_engine_could_not_confirm_is_unbilled(books: Books) -> None:
    left = next(one for one in books.records if one.outcome is Outcome.CLIENT_GONE)
    works = [w for w in books.works if w.request_id != left.request_id]
    works.append(work(left, output_tokens=left.output_tokens + 2))
    report = await books.reconcile(works, ended=False, killed=True, last_ms=left.ended_ms + 100)
    assert report.differences == []
    # A file's time is that of the kernel's last tick: the last line of all seems younger than its file.
    report = await books.reconcile(works, ended=False, killed=True, last_ms=left.ended_ms - 4)
    assert report.differences == []
    (rest,) = [one for one in report.unbilled if one.request_id == left.request_id]
    assert (rest.output_tokens, "killed" in rest.reason) == (2, True)
    # An engine that lives, or lived on for a while, could have told.
    for alive in ({"ended": False}, {"ended": False, "killed": True, "last_ms": left.ended_ms + 60_000}):
        assert found(await books.reconcile(works, **alive)) == {
            Compared.RECORDS_ARE_COUNTS: {left.request_id}
        }


async def test_an_engine_may_not_have_counted_less_than_what_was_recovered(books: Books) -> None:
    recovered = next(one for one in books.records if one.outcome is Outcome.RECOVERED and one.output_tokens)
    works = [w for w in books.works if w.request_id != recovered.request_id]
    works.append(work(recovered, output_tokens=recovered.output_tokens - 1))
    assert found(await books.reconcile(works)) == {Compared.RECORDS_ARE_COUNTS: {recovered.request_id}}


async def test_what_a_killed_gateway_could_not_record_is_unbilled(books: Books, tmp_path: Path) -> None:
    never_written = books.make(outcome=Outcome.DONE, input_tokens=120, cached_tokens=0, output_tokens=35)
    never_written = msgspec.structs.replace(never_written, ended_ms=now_ms())
    killed = Journal(tmp_path / "killed")
    # As the kernel leaves the file of a process that was killed: unlocked, with the room it had reserved.
    left = books.journal.folder / killed.path.name
    left.write_bytes(killed.path.read_bytes())
    killed.close()
    report = await books.reconcile([*books.works, work(never_written)])
    assert report.differences == []
    (one,) = [one for one in report.unbilled if one.request_id == never_written.request_id]
    assert "killed" in one.reason
    # One that ended by itself explains nothing.
    left.write_bytes(killed.path.read_bytes())
    assert found(await books.reconcile([*books.works, work(never_written)])) == {
        Compared.WORK_IS_RECORDED: {never_written.request_id}
    }


async def test_what_a_gateway_had_no_room_to_record_is_unbilled(books: Books) -> None:
    never_written = books.make(outcome=Outcome.DONE, input_tokens=120, cached_tokens=0, output_tokens=35)
    unrecorded = Unrecorded()
    unrecorded.note(never_written.request_id, "JournalFull")
    async with await databases.pool(books.url, "test", size_max=1, command_timeout_s=30) as pool:
        assert await unrecorded.write(pool) == 1
        assert await unrecorded.write(pool) == 0
    report = await books.reconcile([*books.works, work(never_written)])
    assert report.differences == []
    (one,) = [one for one in report.unbilled if one.request_id == never_written.request_id]
    assert (one.reason, one.output_tokens) == ("it could not be recorded: JournalFull", 35)


async def test_damaged_journals_and_frames_set_aside_are_told(books: Books) -> None:
    lost = books.append(outcome=Outcome.DONE)
    (books.journal.folder / "a-0000.journal.quarantined").write_bytes(b"what is this")
    body = books.journal.path.read_bytes()[: books.journal.position][-40:]
    await books.database.execute(
        "insert into billing.rejected_frame (journal, position, body, problem) "
        "values ('j', 1, $1, 'no record')",
        body,
    )
    report = await books.reconcile([*books.works])
    assert set(found(report)) == {Compared.JOURNALS_ARE_WHOLE}
    assert len(report.differences) == 2
    assert lost.request_id not in str(report.differences)


async def test_a_window_leaves_what_was_before_it_alone(books: Books) -> None:
    await books.tamper("delete from billing.usage_event where request_id = $1", books.records[0].request_id)
    connection = await databases.connect(books.url, "test")
    since = datetime.now(UTC) + timedelta(days=2)
    try:
        report = await run.run(
            connection, since=since, until=since + LATER, journal_folder=books.journal.folder
        )
    finally:
        await connection.close()
    windowed = {Compared.SHIPPED_IS_THERE, Check.ROLL_UPS_ARE_SUMS, Check.BOOKINGS_ARE_EVENTS}
    assert not windowed & set(found(report))
    assert report.notes == ["no engine's count was compared: no receipts are on this host"]


async def charge_minutes(books: Books) -> None:
    begin = datetime(2051, 3, 1, 10, 0, tzinfo=UTC)
    async with books.database.acquire() as connection:
        await connection.execute(
            "insert into billing.minute_price_version (kind, subject, nano_usd_per_minute, valid_from) "
            "values ('instance', 'small', 1000, $1)",
            begin,
        )
        for name in ("i-1", "i-2"):
            subject = Subject(kind=IntervalKind.INSTANCE, id=name, priced_as="small", organisation_id=7)
            await intervals.open_interval(connection, subject, begin, holder="one")
            stopped = begin + timedelta(minutes=9.5)
            await intervals.close_interval(connection, subject.kind, name, stopped, holder="one")
        assert (await minutes.accrue(connection, begin + timedelta(hours=1))).minutes == 20
    # Everything before the far future is the window.
    assert (await reconcile_minutes(books)).differences == []


async def reconcile_minutes(books: Books) -> Report:
    connection = await databases.connect(books.url, "test")
    try:
        return await run.run(connection, since=None, until=datetime(2052, 1, 1, tzinfo=UTC))
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("tampering", "checks"),
    [
        (
            "update billing.minute_charge set minutes = 11, cost_nano_usd = 11000 where interval_id = 1",
            {Compared.MINUTES_ARE_INTERVALS, Compared.MINUTES_ARE_BOOKED, Check.REVENUE_IS_USAGE},
        ),
        (
            "delete from billing.minute_charge where interval_id = 1",
            {Compared.MINUTES_ARE_INTERVALS, Compared.MINUTES_ARE_BOOKED, Check.REVENUE_IS_USAGE},
        ),
        (
            "update billing.running_interval set accrued_until = accrued_until + interval '5 minutes'",
            {Compared.MINUTES_ARE_INTERVALS},
        ),
        (
            "update billing.running_interval set subject = 'i-1'",
            {Compared.INTERVALS_ARE_APART},
        ),
    ],
)
async def test_minutes_that_are_not_their_intervals_are_found(
    books: Books, tampering: str, checks: set[str]
) -> None:
    await charge_minutes(books)
    await books.tamper(tampering)
    assert set(found(await reconcile_minutes(books))) == checks


async def test_a_run_is_remembered_and_cannot_be_changed(books: Books) -> None:
    connection = await databases.connect(books.url, "test")
    try:
        assert await run.last(connection) is None
        await books.reconcile(since=datetime.now(UTC) - timedelta(hours=1))
        assert await run.last(connection, whole=True) is None
        await books.reconcile()
        kept = await run.last(connection, whole=True)
        assert kept is not None
        assert kept.differences == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("delete from billing.reconcile_run")
    finally:
        await connection.close()


def test_the_room_a_killed_process_leaves_is_behind_its_last_frame(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    size = os.stat(journal.path).st_size  # noqa: PTH116 - the size as the kernel tells it
    assert size > journal.position >= frames.HEADER_BYTES
    journal.close()
    assert journal.path.stat().st_size == frames.HEADER_BYTES
