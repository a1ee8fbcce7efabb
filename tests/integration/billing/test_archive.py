"""Old events go to files and come back: nothing lost or doubled, whatever breaks off or comes late."""

# ruff: noqa: ASYNC240 - small files, and nothing else runs on these loops
from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from penstock_base import database as connections
from penstock_base import ids
from penstock_billing import archive, frames, invariants, parquet, partitions, roll_ups, shipping
from penstock_billing.errors import ArchiveDamaged, ArchiveError, ArchiveRefused, ArchiveUnavailable
from penstock_billing.journal import Journal
from penstock_billing.record import UsageRecord

Make = Callable[..., UsageRecord]
DAY = date(2026, 3, 14)
MIDNIGHT = datetime(2026, 3, 14, tzinfo=UTC)


def on_day(make: Make, count: int, offset_ms: int = 0, **changes: object) -> list[UsageRecord]:
    """Records all over the day."""
    first_ms = int(MIDNIGHT.timestamp() * 1000) + offset_ms
    return [make(ended_ms=first_ms + n * 86_399_000 // count, **changes) for n in range(count)]


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """With the rights of a running process, no more."""
    one = await connections.connect(database_url, "test")
    await shipping.prepare(one)
    yield one
    await one.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "archive"


async def ship(connection: asyncpg.Connection, journal: Journal, records: list[UsageRecord]) -> int:
    """Ship records and sort them into their days; returns the conflicts."""
    for each in records:
        journal.append(each)
    shipped = await shipping.ship(connection, journal.name, journal.path, limit=10_000)
    await partitions.ensure(connection)
    await partitions.settle(connection)
    return shipped.conflicts


async def ship_again(connection: asyncpg.Connection, journal: Journal) -> shipping.Shipment:
    """Ship the same records as another journal's, as after a careless restore of files."""
    copy = journal.folder / f"{ids.random_text(8)}.journal"
    copy.write_bytes(frames.header(ids.uuid7_bytes(), 0) + journal.path.read_bytes()[frames.HEADER_BYTES :])
    name = frames.read_name(copy)
    assert name is not None
    return await shipping.ship(connection, name, copy, limit=10_000)


async def state(connection: asyncpg.Connection) -> dict[str, list[asyncpg.Record]]:
    """What must not change when events move."""
    tables = ("usage_minute", "usage_hour", "usage_day", "spend_month", "account", "entry")
    return {
        table: await connection.fetch(f"select * from billing.{table} order by 1, 2, 3") for table in tables
    }


async def events(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch("select * from billing.usage_event order by ended_at, event_id")


async def agree(connection: asyncpg.Connection) -> None:
    assert await invariants.check(connection) == []


async def test_a_day_moves_to_a_file_and_comes_back_as_it_was(
    connection: asyncpg.Connection, journal: Journal, make: Make, files: Path
) -> None:
    await ship(connection, journal, [*on_day(make, 300), make(client_request_id="mine", endpoint="é\n")])
    await roll_ups.advance(connection)
    before, sums = await events(connection), await state(connection)
    told: list[tuple[int, int]] = []
    filed = await archive.file_day(connection, files, DAY, lambda *done: told.append(done))
    assert filed is not None
    assert (filed.events, filed.alone, told[-1]) == (300, True, (300, 300))
    assert len(await events(connection)) == 1
    assert [path.name for path in files.iterdir()] == [filed.file]
    assert (files / filed.file).stat().st_size == filed.size_bytes
    assert await state(connection) == sums
    await agree(connection)

    (back,) = await archive.restore(connection, files, DAY)
    assert not back.alone
    assert await events(connection) == before
    assert await state(connection) == sums
    # Costs are reproduced from the restored events too.
    await agree(connection)
    with pytest.raises(ArchiveRefused, match="2026-03-14"):
        await archive.restore(connection, files, DAY)


async def test_a_file_of_before_a_column_came_is_brought_back(
    connection: asyncpg.Connection,
    journal: Journal,
    make: Make,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await ship(connection, journal, on_day(make, 20, policy="", pool_version=0))
    before = await events(connection)
    added = ("admit_us", "wait_us", "wake_us", "retries", "policy", "candidates", "pool_version", "hedged")
    older = {name: kind for name, kind in parquet.COLUMNS.items() if name not in added}
    with monkeypatch.context() as patched:
        patched.setattr(parquet, "COLUMNS", older)
        columns = archive.SQL["events_of_day"].replace(", " + ", ".join(added), "")
        patched.setitem(archive.SQL, "events_of_day", columns)
        await archive.file_day(connection, files, DAY)
    assert await events(connection) == []
    await archive.restore(connection, files, DAY)
    assert await events(connection) == before


async def test_a_file_has_every_column_of_an_event(connection: asyncpg.Connection) -> None:
    columns = await connection.fetch(
        "select column_name, is_nullable from information_schema.columns "
        "where table_schema = 'billing' and table_name = 'usage_event' order by ordinal_position"
    )
    assert [row["column_name"] for row in columns] == list(parquet.COLUMNS)
    assert {row["column_name"] for row in columns if row["is_nullable"] == "YES"} == parquet.UNTOLD


async def test_a_record_that_comes_again_for_a_filed_day_is_not_billed_again(
    connection: asyncpg.Connection, journal: Journal, make: Make, files: Path
) -> None:
    records = on_day(make, 50) + [make() for _ in range(5)]
    await ship(connection, journal, records)
    await archive.file_day(connection, files, DAY)
    sums = await state(connection)
    again = await ship_again(connection, journal)
    assert (again.frames, again.conflicts) == (55, 55)
    assert await state(connection) == sums
    await agree(connection)


async def test_a_record_that_comes_late_for_a_filed_day_is_billed_once_and_filed_too(
    connection: asyncpg.Connection, journal: Journal, make: Make, files: Path
) -> None:
    on_time, late = on_day(make, 50), on_day(make, 7, 500)
    await ship(connection, journal, on_time)
    await archive.file_day(connection, files, DAY)
    assert await ship(connection, journal, late) == 0
    assert (await ship_again(connection, journal)).conflicts == 57
    await agree(connection)
    assert await archive.due(connection, 90, datetime.now(UTC).date()) == [DAY]
    second = await archive.file_day(connection, files, DAY)
    assert second is not None
    assert (second.part, second.events, await events(connection)) == (2, 7, [])
    assert (await ship_again(connection, journal)).conflicts == 57
    await agree(connection)

    assert [each.alone for each in await archive.restore(connection, files, DAY)] == [False, False]
    found = [(row["event_id"].bytes, row["cost_nano_usd"]) for row in await events(connection)]
    assert sorted(found) == sorted((each.event_id, each.cost_nano_usd) for each in on_time + late)
    assert (await ship_again(connection, journal)).conflicts == 57
    await agree(connection)


async def test_what_was_brought_back_stays_for_its_time_and_is_filed_again_whole(
    connection: asyncpg.Connection, journal: Journal, make: Make, files: Path
) -> None:
    await ship(connection, journal, on_day(make, 20))
    await archive.file_day(connection, files, DAY)
    today = datetime.now(UTC).date()
    await archive.restore(connection, files, DAY, timedelta(days=2))
    assert await archive.due(connection, 90, today) == []
    # A person may file it before.
    third = await archive.file_day(connection, files, DAY)
    assert third is not None
    assert (third.part, third.events) == (2, 20)
    await archive.restore(connection, files, DAY, timedelta())
    assert await archive.due(connection, 90, today) == [DAY]
    await agree(connection)


class Broken(Exception):
    pass


async def test_a_try_that_breaks_off_changes_nothing_and_the_next_one_is_whole(
    connection: asyncpg.Connection,
    journal: Journal,
    make: Make,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "ROWS_A_GROUP", 10)
    await ship(connection, journal, on_day(make, 35))
    before = await events(connection)

    def breaks(done: int, _total: int) -> None:
        if done > 20:
            raise Broken

    with pytest.raises(Broken):
        await archive.file_day(connection, files, DAY, breaks)
    assert await events(connection) == before
    assert list(files.iterdir()) == []

    # Killed while it wrote, and killed when the file was whole and noted, and then an event came late.
    (files / f"usage-{DAY}.1.parquet.partial").write_bytes(b"PAR1 half a file")
    await archive._write(connection, files, DAY, 1, 35, archive.quiet)
    await agree(connection)
    await ship(connection, journal, on_day(make, 3, 700))
    assert not await connection.fetchval(archive.SQL["detach_day"], DAY, 1)
    assert len(await events(connection)) == 38
    await agree(connection)

    filed = await archive.file_day(connection, files, DAY)
    assert filed is not None
    assert (filed.part, filed.events) == (1, 38)
    assert [path.name for path in files.iterdir()] == [filed.file]
    await agree(connection)
    assert (await ship_again(connection, journal)).conflicts == 38


async def test_a_restoring_that_breaks_off_changes_nothing_and_the_next_one_is_whole(
    connection: asyncpg.Connection,
    journal: Journal,
    make: Make,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "ROWS_A_GROUP", 10)
    await ship(connection, journal, on_day(make, 35))
    before = await events(connection)
    await archive.file_day(connection, files, DAY)

    def breaks(done: int, _total: int) -> None:
        if done > 20:
            raise Broken

    with pytest.raises(Broken):
        await archive.restore(connection, files, DAY, told=breaks)
    assert await events(connection) == []
    await agree(connection)
    await archive.restore(connection, files, DAY)
    assert await events(connection) == before


@pytest.mark.parametrize("harm", ["missing", "cut", "flipped", "another"])
async def test_a_file_that_is_not_what_was_written_is_refused(
    connection: asyncpg.Connection, journal: Journal, make: Make, files: Path, harm: str
) -> None:
    await ship(connection, journal, on_day(make, 60))
    filed = await archive.file_day(connection, files, DAY)
    assert filed is not None
    path = files / filed.file
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(content[:-100])
    elif harm == "flipped":
        path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    else:
        await ship(connection, journal, on_day(make, 60, 300))
        other = await archive.file_day(connection, files, DAY)
        assert other is not None
        shutil.copy(files / other.file, path)
    with pytest.raises(ArchiveDamaged, match=filed.file):
        await archive.restore(connection, files, DAY)
    assert await events(connection) == []
    await agree(connection)


async def test_a_disk_that_takes_no_more_leaves_the_day_where_it_is(
    connection: asyncpg.Connection, journal: Journal, make: Make, tmp_path: Path
) -> None:
    await ship(connection, journal, on_day(make, 5))
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(ArchiveError, match="PENSTOCK_ARCHIVE_FOLDER"):
        await archive.file_day(connection, tmp_path / "taken", DAY)
    assert len(await events(connection)) == 5


async def test_without_the_library_the_day_stays_and_it_is_said_what_to_install(
    connection: asyncpg.Connection,
    journal: Journal,
    make: Make,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await ship(connection, journal, on_day(make, 5))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ArchiveUnavailable, match=r"penstock\[archive\]"):
        await archive.file_day(connection, files, DAY)
    assert len(await events(connection)) == 5


async def test_days_without_events_just_lose_their_partition(
    connection: asyncpg.Connection, files: Path
) -> None:
    await connection.execute("select billing.ensure_usage_partition($1)", DAY)
    assert await archive.file_day(connection, files, DAY) is None
    assert await archive.due(connection, 3, datetime.now(UTC).date()) == []
    assert not files.exists()
    with pytest.raises(ArchiveRefused):
        await archive.file_day(connection, files, DAY)


async def test_young_days_stay(
    connection: asyncpg.Connection, journal: Journal, make: Make, files: Path
) -> None:
    await ship(connection, journal, [make()])
    today = datetime.now(UTC).date()
    assert await archive.due(connection, 0, today) == []
    with pytest.raises(ArchiveRefused):
        await archive.file_day(connection, files, today)
    for statement in ("detach_day", "file_day", "drop_empty_day"):
        arguments = {
            "detach_day": (today, 1),
            "file_day": (today, 1, "x", 1, b"", [0] * 9),
            "drop_empty_day": (today,),
        }[statement]
        with pytest.raises(asyncpg.RestrictViolationError, match="three days"):
            await connection.fetchval(archive.SQL[statement], *arguments)


async def test_a_running_process_cannot_say_that_a_file_has_what_it_has_not(
    connection: asyncpg.Connection, journal: Journal, make: Make
) -> None:
    await ship(connection, journal, on_day(make, 5))
    await connection.execute(archive.SQL["file_day"], DAY, 1, "nothing", 0, b"", [4, *([0] * 8)])
    assert not await connection.fetchval(archive.SQL["detach_day"], DAY, 1)
    for table in ("archive", "archived_events"):
        for statement in (f"delete from billing.{table}", f"update billing.{table} set part = 9"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_one_at_a_time_files_or_restores(
    connection: asyncpg.Connection, database_url: str, journal: Journal, make: Make, files: Path
) -> None:
    await ship(connection, journal, on_day(make, 30))
    other = await connections.connect(database_url, "test")
    try:
        assert await other.fetchval(archive.SQL["take_turn"])
        with pytest.raises(ArchiveRefused, match="another process"):
            await archive.file_day(connection, files, DAY)
    finally:
        await other.close()
    assert await archive.file_day(connection, files, DAY) is not None


async def test_gateways_go_on_shipping_while_a_day_moves(
    connection: asyncpg.Connection, database_url: str, journal: Journal, make: Make, files: Path
) -> None:
    await ship(connection, journal, on_day(make, 200))
    for each in on_day(make, 400, 100) + [make() for _ in range(400)]:
        journal.append(each)
    shipper = await connections.connect(database_url, "test")
    try:
        await shipping.prepare(shipper)

        async def go_on() -> None:
            while (await shipping.ship(shipper, journal.name, journal.path, limit=40)).frames:
                pass

        async def move() -> None:
            for _ in range(3):
                with contextlib.suppress(asyncpg.LockNotAvailableError):
                    await partitions.settle(connection)
                if DAY in await archive.due(connection, 90, datetime.now(UTC).date()):
                    with contextlib.suppress(ArchiveRefused):  # events keep coming, and stay
                        await archive.file_day(connection, files, DAY)

        await asyncio.gather(go_on(), move())
    finally:
        await shipper.close()
    await agree(connection)
    await partitions.settle(connection)
    if DAY in await archive.due(connection, 90, datetime.now(UTC).date()):
        await archive.file_day(connection, files, DAY)
    await agree(connection)
    assert len(await events(connection)) == 400
    await archive.restore(connection, files, DAY)
    assert len(await events(connection)) == 1000
    await agree(connection)
