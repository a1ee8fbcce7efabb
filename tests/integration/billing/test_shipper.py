from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from penstock_billing import frames, record
from penstock_billing.journal import Journal
from penstock_billing.record import UsageRecord
from penstock_billing.shipper import Shipper
from penstock_billing.testing import usage_record

Make = Callable[..., UsageRecord]
Expect = Callable[[list[UsageRecord]], Awaitable[None]]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


def append(journal: Journal, make: Make, count: int) -> list[UsageRecord]:
    records = [make() for _ in range(count)]
    for each in records:
        journal.append(each)
    return records


def dead_journal(folder: Path, make: Make, count: int) -> tuple[Path, list[UsageRecord]]:
    """Leave what a killed process leaves: no lock, reserved room behind the records."""
    journal = Journal(folder)
    records = append(journal, make, count)
    size = journal.path.stat().st_size
    journal.close()
    os.truncate(journal.path, size)
    return journal.path, records


@contextlib.asynccontextmanager
async def running(shipper: Shipper) -> AsyncIterator[None]:
    task = asyncio.create_task(shipper.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_usage_is_in_postgres_a_moment_after_it_was_appended(
    journal: Journal, shipper: Shipper, make: Make, expect: Expect, until: Until
) -> None:
    records: list[UsageRecord] = []

    async def shipped() -> bool:
        return shipper.state.frames == len(records)

    async with running(shipper):
        records += append(journal, make, 1)
        await until(shipped)
        for _ in range(3):
            begun_s = asyncio.get_running_loop().time()
            records += append(journal, make, 1)
            await until(shipped)
            # 0.1 s of gathering, plus the transaction; far more, as machines are shared.
            assert asyncio.get_running_loop().time() - begun_s < 10
    await expect(records)


async def test_it_knows_how_far_it_is_behind(
    journal: Journal, shipper: Shipper, make: Make, expect: Expect
) -> None:
    await shipper.ship_once()
    assert (shipper.bytes_behind, shipper.oldest_unshipped_s) == (0, 0)
    before = journal.position
    append(journal, make, 10)
    assert shipper.bytes_behind == journal.position - before
    assert await shipper.ship_once() == 10
    assert (shipper.bytes_behind, shipper.oldest_unshipped_s) == (0, 0)
    assert await shipper.ship_once() == 0


async def test_the_journals_of_dead_processes_are_shipped(
    journal: Journal, shipper: Shipper, make: Make, expect: Expect
) -> None:
    path, records = dead_journal(journal.folder, make, 1500)
    records += append(journal, make, 5)
    assert await shipper.ship_once() == 1505
    await expect(records)
    assert shipper.bytes_behind == 0
    # Kept for a while, and not shipped again.
    assert path.exists()
    assert await shipper.ship_once() == 0
    assert shipper.state.conflicts == 0


async def test_a_living_processs_journal_is_left_to_it(
    journal: Journal, shipper: Shipper, make: Make, expect: Expect
) -> None:
    with contextlib.closing(Journal(journal.folder)) as neighbour:
        append(neighbour, make, 5)
        await shipper.ship_once()
        await expect([])


async def test_a_file_is_deleted_when_it_was_shipped_long_enough_ago(
    database: asyncpg.Pool, database_url: str, folder: Path, make: Make, expect: Expect
) -> None:
    path, records = dead_journal(folder, make, 5)
    for keep, left in ((timedelta(hours=48), True), (timedelta(0), True), (timedelta(0), False)):
        # A restart each time; a file with something to ship is never deleted in the same turn.
        if keep == timedelta(0) and path.exists():
            await database.execute("update billing.journal_cursor set shipped_at = now() - interval '1 s'")
        if left and keep == timedelta(0):
            await database.execute("update billing.journal_cursor set shipped_at = now() + interval '1 h'")
        shipper = Shipper(database_url, folder, keep=keep)
        await shipper.ship_once()
        await shipper.close()
        assert path.exists() == left
    await expect(records)


async def test_the_parts_of_a_living_process_are_deleted_in_time_and_the_last_one_never(
    database: asyncpg.Pool, database_url: str, folder: Path, make: Make, expect: Expect
) -> None:
    with contextlib.closing(Journal(folder)) as journal:
        shipper = Shipper(database_url, folder, journal, keep=timedelta(0))
        records = append(journal, make, 3)
        journal.rotate()
        records += append(journal, make, 3)
        journal.rotate()
        await journal.sync()
        for _ in range(3):
            shipper._scan_at_s = 0.0
            await shipper.ship_once()
            await database.execute("update billing.journal_cursor set shipped_at = now() - interval '1 s'")
        assert names_in(folder) == [journal.path.name]
        await shipper.close()
    await expect(records)


async def test_a_copy_of_a_file_under_another_name_counts_nothing_twice(
    database_url: str, folder: Path, make: Make, expect: Expect
) -> None:
    path, records = dead_journal(folder, make, 30)
    (folder / "copy.journal").write_bytes(path.read_bytes())
    shipper = Shipper(database_url, folder)
    await shipper.ship_once()
    await expect(records)
    assert shipper.state.conflicts == 0
    await shipper.close()


async def test_a_database_restored_from_an_older_backup_is_healed_from_the_kept_files(
    database: asyncpg.Pool, database_url: str, folder: Path, make: Make, expect: Expect
) -> None:
    _, records = dead_journal(folder, make, 50)
    shipper = Shipper(database_url, folder)
    await shipper.ship_once()
    await database.execute(
        "set session_replication_role = replica; delete from billing.usage_event; "
        "delete from billing.usage_minute; delete from billing.spend_month; delete from billing.entry; "
        "delete from billing.account; "
        "delete from billing.ledger_transaction; delete from billing.journal_cursor; "
        "reset session_replication_role"
    )
    await expect([])
    # A restore cuts every connection, and that is when the shipper asks again.
    await shipper.close()
    await shipper.ship_once()
    await expect(records)
    await shipper.close()


async def test_a_torn_tail_is_counted_and_costs_nothing_acknowledged(
    database_url: str, folder: Path, make: Make, expect: Expect
) -> None:
    path, records = dead_journal(folder, make, 20)
    end = list(frames.frames(path))[-1].end
    torn = frames.frame(record.encode(make()))[:-20]
    with path.open("r+b") as file:
        file.seek(end)
        file.write(torn)
    shipper = Shipper(database_url, folder)
    await shipper.ship_once()
    assert (shipper.state.torn_tails, shipper.state.quarantined_files) == (1, 0)
    assert shipper.bytes_behind == 0
    await shipper.close()
    await expect(records)


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))


async def test_a_flipped_bit_sets_the_file_aside_with_what_is_whole_before_it_shipped(
    database_url: str, folder: Path, make: Make, expect: Expect
) -> None:
    path, records = dead_journal(folder, make, 20)
    flip(path, list(frames.frames(path))[12].position + 30)
    shipper = Shipper(database_url, folder)
    await shipper.ship_once()
    await expect(records[:12])
    assert shipper.state.quarantined_files == 1
    assert not path.exists()
    assert path.with_name(path.name + ".quarantined").exists()
    await shipper.close()


async def test_damage_in_the_own_file_moves_on_to_a_new_one(
    journal: Journal, shipper: Shipper, make: Make, expect: Expect
) -> None:
    records = append(journal, make, 20)
    damaged = journal.path
    flip(damaged, list(frames.frames(damaged))[12].position + 30)
    await shipper.ship_once()
    assert shipper.state.quarantined_files == 1
    assert journal.path != damaged
    later = append(journal, make, 5)
    await shipper.ship_once()
    await expect(records[:12] + later)
    assert shipper.bytes_behind == 0


async def test_files_that_are_no_journal_are_set_aside_and_newer_ones_left_alone(
    database_url: str, folder: Path, make: Make, expect: Expect
) -> None:
    path, records = dead_journal(folder, make, 3)
    (folder / "a.journal").write_bytes(b"not a journal, whatever its name says; long enough")
    (folder / "b.journal").write_bytes(bytes(100))
    (folder / "c.journal").write_bytes(bytes(100) + path.read_bytes())
    newer = bytearray(path.read_bytes())
    newer[8] = 99
    (folder / "d.journal").write_bytes(newer)
    shipper = Shipper(database_url, folder)
    await shipper.ship_once()
    assert names_in(folder) == sorted(
        ["a.journal.quarantined", "c.journal.quarantined", "d.journal", path.name]
    )
    assert shipper.state.quarantined_files == 2
    await shipper.close()
    await expect(records)


async def test_a_part_that_is_full_is_shipped_to_its_end(
    database_url: str, folder: Path, make: Make, expect: Expect
) -> None:
    with contextlib.closing(Journal(folder, part_bytes=4000, reserve_bytes=1000)) as journal:
        shipper = Shipper(database_url, folder, journal)
        records = []
        for _ in range(5):
            records += append(journal, make, 30)
            await shipper.ship_once()
            assert shipper.bytes_behind == 0
        assert journal.part > 3
        await shipper.close()
    await expect(records)


async def test_draining_ships_what_a_closed_journal_holds(
    journal: Journal, shipper: Shipper, make: Make, expect: Expect
) -> None:
    records = append(journal, make, 2500)
    journal.close()
    assert await shipper.drain(timeout_s=20)
    await expect(records)


async def test_draining_gives_up_in_time_when_postgres_is_away(folder: Path, tmp_path: Path) -> None:
    with contextlib.closing(Journal(folder)) as journal:
        shipper = Shipper(f"postgresql://penstock@/penstock?host={tmp_path}&port=1", folder, journal)
        append(journal, usage_record, 1)
        assert not await shipper.drain(timeout_s=0.5)
        assert shipper.state.failures > 0
        assert shipper.state.last_error is not None


async def test_a_session_that_is_cut_is_replaced(
    database: asyncpg.Pool,
    journal: Journal,
    shipper: Shipper,
    make: Make,
    expect: Expect,
    until: Until,
) -> None:
    records: list[UsageRecord] = []
    async with running(shipper):
        for _ in range(5):
            records += append(journal, make, 20)
            await database.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'penstock shipper' and datname = current_database()"
            )

            async def shipped(wanted: int = len(records)) -> bool:
                return bool(await database.fetchval("select count(*) from billing.usage_event") == wanted)

            await until(shipped)
    assert shipper.state.conflicts == 0
    await expect(records)


async def test_a_round_that_failed_is_tried_again_without_another_append(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make, expect: Expect, until: Until
) -> None:
    await shipper.ship_once()
    await database.execute("alter table billing.entry rename to hidden")
    async with running(shipper):
        records = append(journal, make, 10)

        async def tried() -> bool:
            return shipper.state.failures >= 3

        async with asyncio.timeout(4):
            await until(tried)
        assert shipper.state.last_error is not None
        assert "entry" in shipper.state.last_error
        assert shipper.oldest_unshipped_s > 0
        await database.execute("alter table billing.hidden rename to entry")

        async def shipped() -> bool:
            return shipper.state.frames == 10 and not shipper.state.failures

        await until(shipped)
        assert shipper.state.last_error is None
    await expect(records)


async def test_a_session_that_hangs_is_given_up(
    database: asyncpg.Pool, database_url: str, journal: Journal, make: Make, expect: Expect
) -> None:
    shipper = Shipper(database_url, journal.folder, journal, command_timeout_s=1)
    await shipper.ship_once()
    session = await database.fetchval(
        "select pid from pg_stat_activity "
        "where application_name = 'penstock shipper' and datname = current_database()"
    )
    records = append(journal, make, 10)
    os.kill(session, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            await shipper.ship_once()
        assert await shipper.ship_once() == 10
    finally:
        os.kill(session, signal.SIGCONT)
    await shipper.close()
    await expect(records)


async def test_a_commit_whose_answer_was_lost_is_not_done_twice(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make, expect: Expect
) -> None:
    records = append(journal, make, 100)
    other = Shipper(shipper._database_url, journal.folder, journal)
    # Committed, and this shipper does not know: exactly what a lost answer leaves.
    await other.ship_once()
    await other.close()
    assert await shipper.ship_once() == 0
    assert shipper.bytes_behind == 0
    records += append(journal, make, 7)
    assert await shipper.ship_once() == 7
    assert shipper.state.conflicts == 0
    await expect(records)


@pytest.mark.parametrize("held", ["billing.journal_cursor", "billing.usage_minute", "billing.account"])
async def test_a_locked_table_delays_shipping_and_loses_nothing(
    database: asyncpg.Pool,
    journal: Journal,
    shipper: Shipper,
    make: Make,
    expect: Expect,
    held: str,
) -> None:
    await shipper.ship_once()
    records = append(journal, make, 10)
    async with database.acquire() as holder, holder.transaction():
        await holder.execute(f"lock table {held} in access exclusive mode")
        task = asyncio.create_task(shipper.ship_once())
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert await shipper.ship_once() == 10
    await expect(records)
