from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_billing import boots, frames, progress
from penstock_billing.errors import JournalBroken, JournalUnknownVersion
from penstock_billing.journal import Journal
from penstock_billing.progress import SLOT_BYTES, Progress
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.testing import usage_record


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(tmp_path, reserve_bytes=8192)) as opened:
        yield opened


@pytest.fixture
def notes(journal: Journal) -> Iterator[Progress]:
    with contextlib.closing(Progress(journal.folder, journal.boot_id)) as opened:
        yield opened


def noted(number: int = 1, **changes: object) -> UsageRecord:
    return usage_record(event_id=bytes([number]) * 16, outcome=Outcome.RECOVERED, **changes)


def test_the_last_note_of_each_stream_is_read(notes: Progress) -> None:
    first, second = noted(1, output_tokens=256), noted(2, output_tokens=300)
    for stream in (first, second):
        notes.begin(stream.event_id)
        notes.note(stream)
    later = noted(1, output_tokens=512)
    notes.note(later)
    assert list(progress.read(notes.path)) == [later, second]
    assert notes.noted == 2


def test_a_note_is_one_write(notes: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *call: writes.append(call) or real(*call))
    notes.begin(noted().event_id)
    notes.note(noted())
    assert len(writes) == 1
    # Within one page, so that no kill can tear it.
    _, data, offset = writes[0]
    assert offset // 4096 == (offset + len(data) - 1) // 4096


def test_an_ended_stream_leaves_nothing_and_its_slot_to_others(notes: Progress) -> None:
    for number in range(1, 200):
        notes.begin(noted(number).event_id)
        notes.note(noted(number))
        notes.end(noted(number).event_id)
    assert list(progress.read(notes.path)) == []
    assert notes.path.stat().st_size < 3 * SLOT_BYTES


def test_a_note_that_comes_after_the_end_is_not_kept(notes: Progress) -> None:
    notes.begin(noted().event_id)
    notes.end(noted().event_id)
    notes.note(noted())
    assert list(progress.read(notes.path)) == []


def test_a_long_name_given_by_a_client_costs_itself_and_not_the_note(notes: Progress) -> None:
    long = noted(client_request_id="x" * 256, request_id="é" * 256, replica="r" * 256)
    notes.begin(long.event_id)
    notes.note(long)
    [read] = progress.read(notes.path)
    assert read.client_request_id is None
    assert read.output_tokens == long.output_tokens


def test_the_file_of_a_living_process_is_locked_and_that_of_an_ended_one_deleted(
    journal: Journal, notes: Progress
) -> None:
    with boots.locked(notes.path) as dead:
        assert not dead
    journal.close()
    notes.close()
    assert not notes.path.exists()


def test_a_file_with_a_stream_that_never_ended_is_left_to_others(journal: Journal, notes: Progress) -> None:
    notes.begin(noted().event_id)
    notes.note(noted())
    journal.close()
    notes.close()
    assert progress.recover(notes.path) == 1
    assert not notes.path.exists()
    [closing] = journal.folder.glob(f"*-{boots.CLOSING_PART}.journal")
    assert [frame.body for frame in frames.frames(closing)]


def test_a_full_disk_costs_notes_and_never_a_request(
    notes: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes.begin(noted().event_id)
    notes.begin(noted(2).event_id)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SLOT_BYTES, limits[1]))
        notes.note(noted())
        assert list(progress.read(notes.path)) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    notes.note(noted(2))
    assert [each.event_id for each in progress.read(notes.path)] == [noted(2).event_id]
    assert notes.failure is None


def test_a_note_that_cannot_be_cleared_is_not_found_by_others(
    notes: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes.begin(noted().event_id)
    notes.note(noted())
    with monkeypatch.context() as broken:

        def fail(*_: object) -> int:
            raise OSError(errno.EIO, "the disk failed")

        broken.setattr(os, "pwrite", fail)
        notes.end(noted().event_id)
    assert notes.failure is not None
    assert not notes.path.exists()
    notes.begin(noted(2).event_id)
    notes.note(noted(2))  # neither kept nor an error


def test_a_folder_that_takes_no_file_is_said(journal: Journal, notes: Progress) -> None:
    notes.path.with_name(notes.path.name + ".tmp").touch()
    with pytest.raises(JournalBroken, match="progress file"):
        Progress(journal.folder, journal.boot_id)


def die(journal: Journal, notes: Progress) -> Path:
    """As a killed process does: the locks go, everything else stays."""
    os.close(journal._file)
    os.close(notes._file)
    journal._file = notes._file = -1
    return notes.path


@pytest.mark.parametrize("damage", ["header", "slot"])
def test_damage_costs_only_what_is_damaged(journal: Journal, notes: Progress, damage: str) -> None:
    for number in (1, 2):
        notes.begin(noted(number).event_id)
        notes.note(noted(number))
    path = die(journal, notes)
    with path.open("r+b") as file:
        file.seek(10 if damage == "header" else SLOT_BYTES + 30)
        file.write(b"\xff" if damage == "slot" else b"\0\0\0\1")
    if damage == "header":
        with path.open("r+b") as file:
            file.write(b"RUBBISH!")
    assert progress.recover(path) == (1 if damage == "slot" else 2)


def test_a_newer_releases_file_is_left_to_it(journal: Journal, notes: Progress) -> None:
    path = die(journal, notes)
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b"\x63")
    with pytest.raises(JournalUnknownVersion):
        progress.recover(path)
    assert path.exists()


def test_a_final_record_counts_also_behind_damage(journal: Journal, notes: Progress) -> None:
    notes.begin(noted().event_id)
    notes.note(noted())
    journal.append(usage_record())
    journal.append(noted(output_tokens=999))
    with journal.path.open("r+b") as file:
        file.seek(frames.HEADER_BYTES + 20)
        file.write(b"\xff")
    journal.path.rename(journal.path.with_name(journal.path.name + boots.QUARANTINE_SUFFIX))
    assert progress.recover(die(journal, notes)) == 0


def test_a_listing_that_missed_a_file_settles_nobody(
    journal: Journal, notes: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a folder is listed another process may rename the closing part into it and delete the notes."""
    notes.begin(noted().event_id)
    notes.note(noted())
    boot = journal.boot_id.hex()
    missed = boots.look(journal.folder)
    missed[boot].progress = None
    progress.recover(die(journal, notes))
    listings = [missed]
    real = boots.look
    monkeypatch.setattr(boots, "look", lambda folder: listings.pop() if listings else real(folder))
    assert not boots.complete(journal.folder, boot, [journal.path])
    assert not boots.complete(journal.folder, boot, [journal.path])
    assert boots.complete(journal.folder, boot, journal.folder.glob("*.journal"))


def test_a_process_that_begins_its_next_part_is_not_taken_for_gone(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = journal.boot_id.hex()
    before = boots.look(journal.folder)
    journal.rotate()
    # Listed before the rotation, tried after it: the old part is free, and yet it lives.
    listings = [before]
    real = boots.look
    monkeypatch.setattr(boots, "look", lambda folder: listings.pop() if listings else real(folder))
    assert not boots.gone(journal.folder, boot)
    assert not boots.gone(journal.folder, boot)
    journal.close()
    assert boots.gone(journal.folder, boot)
