"""Progress: what streams had used when their gateway was killed, so that its death costs us little.

Beside its journal a process keeps one file of slots. A stream that runs takes a slot and rewrites it now and
then with the usage record it would leave if it ended here, as `Outcome.RECOVERED`. When it ends, its final
record goes to the journal first, and then the slot is cleared. So a kill leaves for each stream a note, or a
final record, or (between the two) both; then the final one counts.

A note is one write(2) and is not forced to the disk. It survives the death of the process, which is what it
is for; a power cut can take the notes of the last half minute, and with them what those streams cost.

Whoever finds the file of a dead process turns it into the last part of that process's journal, which is
shipped as any other. That can be broken off and begun again at every step.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from penstock_billing import boots, frames, record
from penstock_billing.errors import (
    JournalBroken,
    JournalFull,
    JournalUnknownVersion,
    JournalUnreadable,
    UsageRefused,
)
from penstock_billing.journal import NO_ROOM
from penstock_billing.record import Outcome, UsageRecord

logger = logging.getLogger(__name__)

SLOT_BYTES = 1024
"""A part of a page, so that a killed process leaves each slot as it was before its last write or after it."""
EMPTY = bytes(frames.FRAME.size)
"""What a cleared slot begins with: no frame has the length 0."""


class Progress:
    """The slots of this process's streams. Not for use from several threads.

    Notes are made as well as the disk allows: they bound a loss, and no request fails for want of one.
    """

    def __init__(self, folder: Path, boot_id: bytes) -> None:
        """Open the file of this boot; its journal, in the same folder, must be open already.

        Raises JournalFull or JournalBroken when the file cannot be made.
        """
        self.path = folder / (boot_id.hex() + boots.PROGRESS_SUFFIX)
        self.failure: str | None = None
        """Why no more notes are made, when that is so."""
        self._slots: dict[bytes, int | None] = {}
        """Streams that run, by event id: their slots, or None before their first note."""
        self._free: list[int] = []
        self._next = 1
        hidden = self.path.with_name(self.path.name + boots.HIDDEN_SUFFIX)
        try:
            self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(self._file, frames.header(boot_id, boots.CLOSING_PART), 0)
            hidden.rename(self.path)
        except OSError as error:
            problem = f"the progress file in {folder} cannot be made: {error}"
            raise (JournalFull if error.errno in NO_ROOM else JournalBroken)(problem) from error

    @property
    def noted(self) -> int:
        """Streams that have a note now."""
        return sum(slot is not None for slot in self._slots.values())

    def begin(self, event_id: bytes) -> None:
        """Say that a stream runs; only between this and `end` are its notes kept."""
        self._slots.setdefault(event_id)

    def note(self, usage: UsageRecord) -> None:
        """Write what a stream has used so far, in place of what was noted of it before.

        Does nothing for a stream that has ended: a late note would charge it once more.
        """
        if usage.event_id not in self._slots or self.failure is not None:
            return
        data = frames.frame(record.encode(usage))
        if len(data) > SLOT_BYTES:
            # Only what a client called its request is long and of no consequence.
            data = frames.frame(record.encode(msgspec.structs.replace(usage, client_request_id=None)))
        if len(data) > SLOT_BYTES:
            return
        slot = self._slots[usage.event_id]
        if slot is None:
            slot = self._free.pop() if self._free else self._next
        # Taken before it is written: whatever a write that fails leaves there is cleared at the end.
        self._slots[usage.event_id] = slot
        self._next = max(self._next, slot + 1)
        try:
            os.pwrite(self._file, data, slot * SLOT_BYTES)
        except OSError as error:
            if error.errno not in NO_ROOM:
                self._give_up(error)

    def end(self, event_id: bytes) -> None:
        """Forget what was noted of a stream: its final record is in the journal, or nothing is charged."""
        slot = self._slots.pop(event_id, None)
        if slot is None or self.failure is not None:
            return
        try:
            os.pwrite(self._file, EMPTY, slot * SLOT_BYTES)
        except OSError as error:
            self._give_up(error)
        else:
            self._free.append(slot)

    def close(self) -> None:
        """Let the file go, after the journal was closed; safe to repeat.

        It is deleted, unless streams have notes and no end: those are for whoever adopts the file.
        """
        if self._file < 0:
            return
        if not self.noted and self.failure is None:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1
        self.failure = self.failure or "it is closed"

    def _give_up(self, error: OSError) -> None:
        """What cannot be cleared must not be found: better no notes than one that charges a stream twice."""
        self.failure = f"the progress file {self.path} failed: {error}"
        logger.error("%s; what streams used is not noted any more", self.failure)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)


def read(path: Path) -> Iterator[UsageRecord]:
    """Yield what a file's whole slots say. Half-written and damaged ones say nothing."""
    with path.open("rb") as file:
        file.seek(SLOT_BYTES)
        while slot := file.read(SLOT_BYTES):
            body = frames.frame_at(slot, 0)
            if body is None:
                continue
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, UsageRefused):
                noted = record.decode(body)
                if noted.outcome is Outcome.RECOVERED:
                    yield noted


def recover(path: Path) -> int:
    """Turn a dead process's progress file into the closing part of its journal; how many streams are in it.

    Nobody else may be at it: the caller holds its lock. Streams with a final record in any of the process's
    files are left out, also where that file is damaged and set aside: what is whole in it is the truth about
    them. Killed at any point, it can be done again: the closing part is there whole or not at all, and never
    written twice. Raises JournalUnknownVersion for a newer release's file, OSError.
    """
    boot = path.name.removesuffix(boots.PROGRESS_SUFFIX)
    remains = boots.look(path.parent).get(boot, boots.Remains())
    count = 0
    if not remains.closed:
        _check_version(path)
        noted = {usage.event_id: usage for usage in read(path)}
        if noted:
            for file in [*remains.parts.values(), *remains.quarantined]:
                for body in frames.anywhere(file):
                    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, UsageRefused):
                        noted.pop(record.decode(body).event_id, None)
        if noted:
            boots.close_journal(path.parent, boot, [record.encode(each) for each in noted.values()])
            count = len(noted)
    path.unlink(missing_ok=True)
    return count


def _check_version(path: Path) -> None:
    """Leave a newer release's file to one; raises JournalUnknownVersion.

    That the header is damaged is no matter: the name says whose file it is, and each slot has its checksum.
    """
    try:
        frames.read_name(path)
    except JournalUnknownVersion:
        raise
    except JournalUnreadable as error:
        logger.warning("%s; its whole slots are used", error)
