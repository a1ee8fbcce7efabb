"""When a process counts as gone with all it wrote in the database: credit and claims are released by that."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from penstock_billing import boots, frames, progress, shipping
from penstock_billing.errors import JournalBroken
from penstock_billing.journal import Journal
from penstock_billing.progress import Progress
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.shipper import Shipper

Make = Callable[..., UsageRecord]
Expect = Callable[[list[UsageRecord]], Awaitable[None]]


class Process:
    """A journal and its progress file, and what is to be found in the database when it is killed."""

    def __init__(self, folder: Path, make: Make) -> None:
        self.journal = Journal(folder, reserve_bytes=8192)
        self.progress = Progress(folder, self.journal.boot_id)
        self.make = make
        self.records: list[UsageRecord] = []
        self.noted: list[UsageRecord] = []

    @property
    def boot(self) -> str:
        return self.journal.boot_id.hex()

    def serve(self, count: int) -> None:
        for _ in range(count):
            self.records.append(self.make())
            self.journal.append(self.records[-1])

    def stream(self) -> UsageRecord:
        noted = self.make(outcome=Outcome.RECOVERED)
        self.progress.begin(noted.event_id)
        self.progress.note(noted)
        self.noted.append(noted)
        return noted

    def die(self) -> None:
        for file in (self.journal._file, self.progress._file):
            os.close(file)
        self.journal._file = self.progress._file = -1


@pytest.fixture
def process(folder: Path, make: Make) -> Process:
    return Process(folder, make)


@pytest.fixture
async def adopter(database_url: str, folder: Path) -> AsyncIterator[Shipper]:
    shipper = Shipper(database_url, folder)
    yield shipper
    await shipper.close()


async def scan(shipper: Shipper) -> int:
    shipper._scan_at_s = 0.0
    return await shipper.ship_once()


async def settled(database: asyncpg.Pool, process: Process) -> bool:
    return bool(
        await database.fetchval(
            "select settled_at is not null from billing.gateway_boot where boot_id = $1", process.boot
        )
    )


async def test_what_was_noted_is_charged_and_the_process_settled(
    process: Process, adopter: Shipper, database: asyncpg.Pool, expect: Expect
) -> None:
    process.serve(3)
    process.stream()
    process.stream()
    process.die()
    await scan(adopter)
    await expect(process.records + process.noted)
    assert adopter.state.recovered == 2
    assert adopter.state.conflicts == 0
    assert await settled(database, process)
    assert not list(process.journal.folder.glob("*.progress"))
    assert await scan(adopter) == 0


async def test_a_stream_with_a_note_and_a_final_record_is_charged_by_the_final_one(
    process: Process, adopter: Shipper, expect: Expect, make: Make
) -> None:
    process.serve(2)
    noted = process.stream()
    final = make(event_id=noted.event_id, outcome=Outcome.DONE, output_tokens=799)
    process.journal.append(final)
    process.die()  # before the slot was cleared
    await scan(adopter)
    await expect([*process.records, final])


async def test_a_living_process_is_not_settled_however_much_is_shipped(
    process: Process, adopter: Shipper, database: asyncpg.Pool
) -> None:
    process.serve(3)
    process.journal.rotate()
    await process.journal.sync()
    await scan(adopter)
    assert await database.fetchval("select count(*) from billing.usage_event") == 3
    assert not await settled(database, process)
    process.die()
    await scan(adopter)
    assert await settled(database, process)


async def test_a_process_that_ends_well_settles_itself(
    process: Process, database: asyncpg.Pool, database_url: str, expect: Expect
) -> None:
    shipper = Shipper(database_url, process.journal.folder, process.journal)
    await shipper.ship_once()
    assert not await settled(database, process)
    assert await database.fetchval("select count(*) from billing.gateway_boot") == 1
    process.serve(5)
    process.journal.close()
    process.progress.close()
    assert await shipper.drain(20)
    await shipper.close()
    assert await settled(database, process)
    await expect(process.records)


async def test_it_says_now_and_then_that_it_lives(
    process: Process, database: asyncpg.Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_billing.shipper.SEEN_EVERY_S", 0.0)
    shipper = Shipper(database_url, process.journal.folder, process.journal)
    query = "select host, seen_at from billing.gateway_boot where boot_id = $1"
    await shipper.ship_once()
    first = await database.fetchrow(query, process.boot)
    await shipper.ship_once()
    second = await database.fetchrow(query, process.boot)
    assert second["seen_at"] > first["seen_at"]
    assert first["host"]
    await shipper.close()
    process.die()


async def test_a_process_that_others_took_for_dead_ends(
    process: Process, database: asyncpg.Pool, database_url: str
) -> None:
    shipper = Shipper(database_url, process.journal.folder, process.journal)
    await database.execute(
        "insert into billing.gateway_boot (boot_id, host, settled_at) values ($1, 'other', now())",
        process.boot,
    )
    with pytest.raises(JournalBroken, match="taken for dead"):
        await shipper.run()
    await shipper.close()
    process.die()


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))


async def test_nothing_that_is_set_aside_is_forgotten(
    process: Process, adopter: Shipper, database: asyncpg.Pool
) -> None:
    process.serve(10)
    path = process.journal.path
    process.die()
    flip(path, list(frames.frames(path))[4].position + 20)
    for _ in range(3):
        await scan(adopter)
        assert not await settled(database, process)
    # A person saw to it: gave the rest up, here.
    path.with_name(path.name + boots.QUARANTINE_SUFFIX).unlink()
    await scan(adopter)
    assert await settled(database, process)


async def test_what_was_noted_beside_a_damaged_file_is_charged_also_at_the_second_try(
    process: Process, adopter: Shipper, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.serve(10)
    process.stream()
    path = process.journal.path
    process.die()
    flip(path, list(frames.frames(path))[4].position + 20)

    def fail(_: Path) -> int:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as full:
        full.setattr(progress, "recover", fail)
        await scan(adopter)
    await expect(process.records[:4])
    await scan(adopter)
    await expect(process.records[:4] + process.noted)


async def test_a_damaged_closing_part_is_not_written_again(
    process: Process, adopter: Shipper, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        process.stream()
    process.die()
    with monkeypatch.context() as dying:
        dying.setattr(Path, "unlink", lambda *_, **__: None)
        progress.recover(process.progress.path)
    assert process.progress.path.exists()
    [closing] = process.journal.folder.glob(f"*-{boots.CLOSING_PART}.journal")
    flip(closing, list(frames.frames(closing))[2].position + 20)
    with monkeypatch.context() as busy:
        busy.setattr(boots, "gone", lambda *_: False)
        await scan(adopter)
    for _ in range(2):
        await scan(adopter)
    await expect(process.noted[:2])
    assert not process.progress.path.exists()


async def test_a_newer_releases_file_keeps_its_process_unsettled(
    process: Process, adopter: Shipper, database: asyncpg.Pool
) -> None:
    process.serve(3)
    process.journal.rotate()
    process.serve(3)
    path = process.journal.path
    process.die()
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b"\x63")
    await scan(adopter)
    assert not await settled(database, process)
    assert path.exists()


async def test_files_are_kept_until_their_process_is_settled(
    process: Process, database: asyncpg.Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.serve(3)
    process.stream()
    process.die()
    adopter = Shipper(database_url, process.journal.folder, keep=timedelta(0))
    with monkeypatch.context() as never:
        never.setattr(boots, "complete", lambda *_: False)
        for _ in range(3):
            await scan(adopter)
        left = {path.name for path in process.journal.folder.iterdir()}
        assert left == {f"{process.boot}-0000.journal", f"{process.boot}-{boots.CLOSING_PART}.journal"}
    await asyncio.sleep(0)
    for _ in range(2):
        await scan(adopter)
    assert await settled(database, process)
    assert list(process.journal.folder.iterdir()) == []
    await adopter.close()


async def test_a_restored_database_hears_of_everything_again(
    process: Process, adopter: Shipper, database: asyncpg.Pool, expect: Expect
) -> None:
    process.serve(5)
    process.stream()
    process.die()
    await scan(adopter)
    await database.execute(
        "set session_replication_role = replica; delete from billing.usage_event; "
        "delete from billing.usage_minute; delete from billing.spend_month; delete from billing.entry; "
        "delete from billing.account; delete from billing.ledger_transaction; "
        "delete from billing.journal_cursor; delete from billing.gateway_boot; "
        "reset session_replication_role"
    )
    await adopter.close()  # as a restore does
    await scan(adopter)
    await expect(process.records + process.noted)
    assert await settled(database, process)


class Killed(BaseException):
    """The adopter is gone at this very place."""


STEPS: list[tuple[Any, str]] = [
    (boots, "close_journal"),
    (boots, "sync_folder"),
    (Path, "rename"),
    (Path, "unlink"),
    (progress, "recover"),
    (shipping, "ship"),
    (boots, "complete"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS, ids=[name for _, name in STEPS])
async def test_an_adopter_may_die_at_every_step(
    process: Process,
    database: asyncpg.Pool,
    database_url: str,
    expect: Expect,
    step: tuple[Any, str],
    after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process.serve(4)
    process.stream()
    process.stream()
    process.die()
    owner, name = step
    real = getattr(owner, name)

    def killing(*arguments: Any, **named: Any) -> Any:
        if after:
            real(*arguments, **named)
        raise Killed

    async def killing_soon(*arguments: Any, **named: Any) -> Any:
        if after:
            await real(*arguments, **named)
        raise Killed

    first = Shipper(database_url, process.journal.folder)
    with monkeypatch.context() as dying:
        dying.setattr(owner, name, killing_soon if asyncio.iscoroutinefunction(real) else killing)
        with pytest.raises(Killed):
            await scan(first)
        assert not await settled(database, process)
    await first.close()

    second = Shipper(database_url, process.journal.folder)
    await scan(second)
    assert (await scan(second), second.state.conflicts) == (0, 0)
    await second.close()
    await expect(process.records + process.noted)
    assert await settled(database, process)
    assert not list(process.journal.folder.glob("*.progress"))


async def test_two_adopters_at_once_charge_once(
    process: Process, database: asyncpg.Pool, database_url: str, expect: Expect
) -> None:
    process.serve(200)
    for _ in range(20):
        process.stream()
    process.die()
    adopters = [Shipper(database_url, process.journal.folder) for _ in range(3)]
    async with asyncio.timeout(30):
        while not await settled(database, process):
            await asyncio.gather(*(scan(adopter) for adopter in adopters))
    await expect(process.records + process.noted)
    assert sum(adopter.state.recovered for adopter in adopters) == 20
    for adopter in adopters:
        await adopter.close()
