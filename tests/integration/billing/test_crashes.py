"""Real processes, really killed: what a writer acknowledged is in Postgres once, whatever dies and when.

The seed stands in the test's name; PENSTOCK_SEED=<seed> runs it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest

from penstock_billing import frames, invariants
from penstock_billing.journal import Journal
from penstock_billing.shipper import DATABASE_AWAY
from penstock_billing.testing import usage_record

SEED = int(os.environ.get("PENSTOCK_SEED", "0")) or random.randrange(1, 2**31)
ACK = struct.Struct("<16sQ")
"""What the writer says once a record is in its journal: event id and cost, nano-dollars."""

WRITER = """
import asyncio, os, random, struct, sys
from pathlib import Path
from penstock_billing.journal import Journal
from penstock_billing.shipper import Shipper
from penstock_billing.testing import usage_record

url, folder, pipe, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
dice = random.Random(seed)

async def main():
    # As a gateway does: its own journal, and its own shipper, which also adopts the journals of the dead.
    journal = Journal(folder, part_bytes=64 * 1024, reserve_bytes=16 * 1024)
    shipper = Shipper(url, folder, journal)
    tasks = [asyncio.create_task(journal.run()), asyncio.create_task(shipper.run())]
    while True:
        for _ in range(dice.randrange(40)):
            one = usage_record(
                organisation_id=dice.randrange(1, 20),
                cost_nano_usd=dice.randrange(10**6),
                output_tokens=dice.randrange(999),
            )
            journal.append(one)
            os.write(pipe, struct.pack("<16sQ", one.event_id, one.cost_nano_usd))
        await asyncio.sleep(0.004)
        assert not any(task.done() for task in tasks)

asyncio.run(main())
"""

SHIPPER = """
import asyncio, sys
from pathlib import Path
from penstock_billing.shipper import Shipper

asyncio.run(Shipper(sys.argv[1], Path(sys.argv[2])).run())
"""

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
COUNTED = frozenset(invariants.Check) - {invariants.Check.COSTS_ARE_REPRODUCED}
"""The writer makes its costs up, so they follow from no price."""


class Hurtable(Protocol):
    url: str

    async def start(self) -> None: ...
    async def stop_at_once(self) -> None: ...


class Writers:
    """Writer processes one after the other, and what they acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.acknowledged: dict[bytes, int] = {}
        self.kills = 0
        self._folder = folder
        self._rest = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    async def start(self, url: str, seed: int) -> None:
        """Start one and wait for its first acknowledgement."""
        self._spawn(url, seed)
        before = len(self.acknowledged)
        while len(self.acknowledged) == before:
            assert self._process is not None
            assert self._process.poll() is None, "the writer did not start"
            await self.listen_for(0.05)

    def _spawn(self, url: str, seed: int) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(self._folder), str(writing), str(seed)],
            pass_fds=[writing],
        )
        os.close(writing)
        os.set_blocking(reading, False)
        self._pipe = reading

    async def listen_for(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.listen()
            await asyncio.sleep(0.01)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def listen(self) -> None:
        """Take in the acknowledgements that are there."""
        if self._process is None:
            return
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._pipe, 1 << 16):
                self._take(data)

    def kill(self) -> None:
        """SIGKILL, then hear out what it had said."""
        if self._process is None:
            return
        assert self._process.poll() is None, "the writer ended by itself"
        self._process.kill()
        self._process.wait()
        self.kills += 1
        os.set_blocking(self._pipe, True)
        self.listen()
        os.close(self._pipe)
        self._process = None
        assert not self._rest

    def _take(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) // ACK.size * ACK.size
        self.acknowledged.update(ACK.iter_unpack(data[:whole]))
        self._rest = data[whole:]


@contextlib.contextmanager
def process(script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", script, *arguments]) as one:
        try:
            yield one
        finally:
            one.kill()


@pytest.fixture
def writers(folder: Path) -> Iterator[Writers]:
    some = Writers(folder)
    yield some
    some.kill()


@pytest.mark.parametrize("seed", [SEED])
async def test_nothing_acknowledged_is_lost_or_doubled_whatever_is_killed(
    hurtable_postgres: Hurtable, folder: Path, writers: Writers, until: Until, seed: int
) -> None:
    dice = random.Random(seed)
    url = hurtable_postgres.url
    for boot in range(6):
        with process(SHIPPER, url, str(folder)) as shipper:
            await writers.start(url, seed + boot)
            await writers.listen_for(dice.uniform(0.2, 0.8))
            if boot % 3 == 1:
                await hurtable_postgres.stop_at_once()
                await writers.listen_for(dice.uniform(0.1, 0.4))
                if dice.random() < 0.5:
                    writers.kill()  # with Postgres away: only the file knows
                await hurtable_postgres.start()
            else:
                shipper.kill()
            await writers.listen_for(dice.uniform(0.0, 0.3))
            writers.kill()
            if dice.random() < 0.5:
                tear(folder, dice)
    assert len(writers.acknowledged) > 1000
    await expect_each_once(url, folder, writers, until)


async def test_a_shipper_killed_in_the_middle_of_a_backlog_repeats_nothing_and_skips_nothing(
    database: asyncpg.Pool, database_url: str, folder: Path, until: Until
) -> None:
    dice = random.Random(SEED)
    journal = Journal(folder)
    records = [usage_record(organisation_id=1 + n % 50, cost_nano_usd=n) for n in range(50_000)]
    for each in records:
        journal.append(each)
    journal.close()

    async def shipped() -> int:
        return int(await database.fetchval("select coalesce(sum(records), 0) from billing.journal_cursor"))

    for _ in range(6):
        if (before := await shipped()) == len(records):
            break  # a fast machine; most of the kills were made
        with process(SHIPPER, database_url, str(folder)) as shipper:

            async def at_work(before: int = before) -> bool:
                return await shipped() > before

            await until(at_work)
            # Anywhere within a batch, which takes some 20 ms.
            await asyncio.sleep(dice.uniform(0, 0.04))
            shipper.kill()

    async def done() -> bool:
        return await shipped() == len(records)

    with process(SHIPPER, database_url, str(folder)):
        await until(done)
    async with database.acquire() as connection:
        assert await invariants.check(connection, COUNTED) == []
        rows = await connection.fetch("select event_id, cost_nano_usd from billing.usage_event")
    assert {row["event_id"].bytes: row["cost_nano_usd"] for row in rows} == {
        each.event_id: each.cost_nano_usd for each in records
    }


async def test_a_stopped_writer_that_wakes_up_again_goes_on_where_it_was(
    database_url: str, folder: Path, writers: Writers, until: Until
) -> None:
    with process(SHIPPER, database_url, str(folder)):
        await writers.start(database_url, SEED)
        await writers.listen_for(0.5)
        assert writers.pid is not None
        os.kill(writers.pid, signal.SIGSTOP)
        # Alive though silent: its lock keeps the other shipper away from its file.
        await writers.listen_for(0.5)
        os.kill(writers.pid, signal.SIGCONT)
        before = len(writers.acknowledged)
        await writers.listen_for(0.5)
        assert len(writers.acknowledged) > before
        writers.kill()
    await expect_each_once(database_url, folder, writers, until)


async def expect_each_once(url: str, folder: Path, writers: Writers, until: Until) -> None:
    """Let a last shipper finish, then compare."""
    with process(SHIPPER, url, str(folder)):

        async def all_there() -> bool:
            with contextlib.suppress(*DATABASE_AWAY):
                return await missing(url, writers.acknowledged) == 0
            return False

        await until(all_there)
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select event_id, cost_nano_usd from billing.usage_event")
        found = {row["event_id"].bytes: row["cost_nano_usd"] for row in rows}
        assert len(found) == len(rows)
        assert {id_: found[id_] for id_ in writers.acknowledged} == writers.acknowledged
        # Written and not yet acknowledged when the kill came: at most one per killed writer.
        assert len(found) - len(writers.acknowledged) <= writers.kills
        assert await invariants.check(connection, COUNTED) == []
        assert await connection.fetchval("select count(*) from billing.rejected_frame") == 0
    finally:
        await connection.close()
    assert not list_quarantined(folder)


async def missing(url: str, wanted: dict[bytes, int]) -> int:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select event_id from billing.usage_event")
    finally:
        await connection.close()
    return len(wanted.keys() - {row["event_id"].bytes for row in rows})


def tear(folder: Path, dice: random.Random) -> None:
    """Put half a frame behind the last whole one of some file, as a power cut leaves it."""
    path = dice.choice(sorted(folder.glob("*.journal")))
    end = max((frame.end for frame in frames.frames(path)), default=frames.HEADER_BYTES)
    half = frames.frame(dice.randbytes(150))[: dice.randrange(1, 150)]
    with path.open("r+b") as file:
        file.seek(end)
        file.write(half)


def list_quarantined(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.quarantined"))
