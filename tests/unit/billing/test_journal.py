from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_billing import frames, record
from penstock_billing.errors import JournalBroken, JournalFull
from penstock_billing.journal import Journal
from penstock_billing.record import UsageRecord
from penstock_billing.testing import usage_record

ROOM = 64 * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(folder, reserve_bytes=ROOM)) as opened:
        yield opened


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def recorded(folder: Path) -> list[UsageRecord]:
    return [record.decode(frame.body) for path in parts(folder) for frame in frames.frames(path)]


def append_until_full(journal: Journal) -> list[tuple[UsageRecord, bool]]:
    """Append until the journal refuses; each record, and whether requests were still admitted after it."""
    appended = []
    with contextlib.suppress(JournalFull):
        while True:
            one = usage_record()
            journal.append(one)
            appended.append((one, journal.healthy))
    return appended


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextlib.contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Make the kernel refuse files beyond a size, as a full disk would: a real EFBIG, for anybody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_appended_can_be_read_at_once(journal: Journal, folder: Path) -> None:
    records = [usage_record() for _ in range(10)]
    for each in records:
        journal.append(each)
    assert recorded(folder) == records
    assert frames.read_name(journal.path) == journal.name
    assert journal.healthy
    assert journal.problem is None


def test_an_append_is_one_write(journal: Journal) -> None:
    def writes() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("syscw:"))

    records = [usage_record() for _ in range(100)]
    before = writes()
    for each in records:
        journal.append(each)
    assert writes() - before == 100


def test_records_outlive_a_killed_writer_and_its_file_is_free_to_adopt(folder: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from penstock_billing.journal import Journal
from penstock_billing.testing import usage_record
journal = Journal(Path(sys.argv[1]))
for n in range(500):
    journal.append(usage_record(output_tokens=n))
print(journal.path, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        path = Path(writer.stdout.readline().strip())
        assert is_locked(path)
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert [each.output_tokens for each in recorded(folder)] == list(range(500))
    assert not is_locked(path)
    end = list(frames.frames(path))[-1].end
    assert frames.judge(path, end) is frames.Tail.CLEAN


def test_a_closed_journal_is_exactly_its_records_and_takes_no_more(journal: Journal) -> None:
    journal.append(usage_record())
    journal.close()
    journal.close()
    assert journal.path.stat().st_size == journal.position
    assert not journal.healthy
    with pytest.raises(JournalBroken, match="is closed"):
        journal.append(usage_record())


def test_two_journals_in_one_folder_never_share_a_file(journal: Journal, folder: Path) -> None:
    with contextlib.closing(Journal(folder)) as other:
        assert other.path != journal.path


async def test_a_full_part_is_followed_by_the_next_and_let_go(folder: Path) -> None:
    journal = Journal(folder, part_bytes=2000, reserve_bytes=500)
    records = [usage_record() for _ in range(100)]
    for each in records:
        journal.append(each)
    assert journal.part > 5
    paths = parts(folder)
    assert [path.name for path in paths][-1] == journal.path.name
    assert [is_locked(path) for path in paths] == [False] * journal.part + [True]
    await journal.sync()
    assert all(path.stat().st_size <= 2000 for path in paths[:-1])
    journal.close()
    assert recorded(folder) == records
    names = [frames.read_name(path) for path in paths]
    assert names == [frames.journal_name(journal.boot_id, part) for part in range(journal.part + 1)]


def test_a_disk_that_fills_up_stops_admission_before_it_loses_a_record(folder: Path) -> None:
    with contextlib.closing(Journal(folder, reserve_bytes=ROOM)) as journal, file_size_limit(ROOM + 100):
        appended = append_until_full(journal)
        assert not journal.healthy
        assert journal.problem is not None
        with pytest.raises(JournalFull, match="no room"):
            journal.append(usage_record())
        assert recorded(folder) == [each for each, _ in appended]
        # What was admitted while all was well had half of the reserve to end in.
        after_warning = [each for each, healthy in appended if not healthy]
        assert len(after_warning) > len(appended) * 0.4


async def test_room_that_comes_back_heals_the_journal(folder: Path) -> None:
    with contextlib.closing(Journal(folder, reserve_bytes=ROOM)) as journal:
        with file_size_limit(ROOM + 100):
            records = [each for each, _ in append_until_full(journal)]
        task = asyncio.create_task(journal.run())
        async with asyncio.timeout(10):
            while not journal.healthy:  # noqa: ASYNC110 - the journal tells nobody; admission asks it each time
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        records.append(usage_record())
        journal.append(records[-1])
    # The record that did not fit left a part of itself, which the next one replaced.
    assert recorded(folder) == records


async def test_room_that_comes_back_is_noticed_though_nothing_is_appended_any_more(folder: Path) -> None:
    with contextlib.closing(Journal(folder, reserve_bytes=ROOM)) as journal:
        task = asyncio.create_task(journal.run())
        await asyncio.sleep(0)  # it waits for something to force to the disk
        with file_size_limit(journal.position), pytest.raises(JournalFull):
            journal.append(usage_record())
        assert not journal.healthy
        async with asyncio.timeout(10):
            while not journal.healthy:  # noqa: ASYNC110 - the journal tells nobody; admission asks it each time
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_journal_that_finds_no_room_to_begin_says_so(folder: Path) -> None:
    with file_size_limit(10), pytest.raises(JournalFull):
        Journal(folder)
    assert not list(folder.iterdir())


def test_a_device_error_breaks_the_journal_for_good(journal: Journal) -> None:
    good = os.dup(journal._file)
    read_only = os.open(os.devnull, os.O_RDONLY)
    os.dup2(read_only, journal._file)
    os.close(read_only)
    with pytest.raises(JournalBroken, match="failed"):
        journal.append(usage_record())
    # What the disk holds is not known any more, so it does not help that it answers again.
    os.dup2(good, journal._file)
    os.close(good)
    assert not journal.healthy
    with pytest.raises(JournalBroken, match="failed"):
        journal.append(usage_record())


async def test_a_failing_sync_ends_run_and_the_journal(journal: Journal) -> None:
    journal.append(usage_record())
    reading, writing = os.pipe()
    # A pipe takes no fdatasync: EINVAL, where a dying disk would say EIO.
    os.dup2(writing, journal._file)
    os.close(writing)
    with pytest.raises(JournalBroken, match="forced to the disk"):
        await asyncio.wait_for(journal.run(), 5)
    assert not journal.healthy
    with pytest.raises(JournalBroken):
        journal.close()
    os.close(reading)


async def test_many_records_are_forced_to_the_disk_together_while_the_loop_goes_on(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync
    syncs: list[tuple[int, int]] = []
    appended = 0

    def slow(file: int) -> None:
        before = appended
        time.sleep(0.2)  # a disk at work
        real(file)
        syncs.append((threading.get_ident(), appended - before))

    monkeypatch.setattr(os, "fdatasync", slow)
    running = asyncio.create_task(journal.run())
    while len(syncs) < 3:
        for _ in range(10):
            journal.append(usage_record())
            appended += 1
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert threading.get_ident() not in {thread for thread, _ in syncs}
    # Records came in while the disk was at work, and many waited for one force.
    assert min(during for _, during in syncs) > 0
    assert appended / len(syncs) > 10
