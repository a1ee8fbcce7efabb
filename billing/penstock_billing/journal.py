"""The journal: where a usage record is first written, before the last byte of its response leaves.

One process writes one journal per boot, in parts of 64 MiB, and holds a lock on the part it writes, so
that any other process can tell a dead owner's files. An append is one write(2): it survives the death of
the process. A thread forces the data to the disk every 50 ms, which bounds what a power cut can take.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import threading
from pathlib import Path

from penstock_base import ids
from penstock_billing import frames, record
from penstock_billing.errors import JournalBroken, JournalError, JournalFull

SUFFIX = ".journal"
PART_BYTES = 64 * 1024 * 1024
RESERVE_BYTES = 1024 * 1024
"""Room kept ahead of the last record: what was admitted before the disk filled up can still be written."""
SYNC_INTERVAL_S = 0.05
RETRY_FULL_S = 1.0
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_RESERVING = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV})
"""What file systems answer that cannot reserve room; there the journal works without."""


class Journal:
    """The journal of this process's boot. Not for use from several threads; `run` must be running."""

    def __init__(
        self,
        folder: Path,
        *,
        boot_id: bytes | None = None,
        part_bytes: int = PART_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        """Open a new journal in `folder`, which is made where missing.

        Raises JournalFull or JournalBroken when the file cannot be made.
        """
        self.folder = folder
        self.boot_id = boot_id or ids.uuid7_bytes()
        self.part = 0
        self.appended = asyncio.Event()
        """Set by every append; whoever ships waits for it and clears it."""
        self._file = -1
        self._position = 0
        self._reserved = 0
        self._extend_at = 0
        self._part_bytes = part_bytes
        self._reserve_bytes = reserve_bytes
        self._full = False
        self._failure: str | None = None
        self._dirty = asyncio.Event()
        self._retired: list[tuple[int, int]] = []
        self._file_lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open_part()
            # Before this process holds credit or claims: a power cut must leave a trace of whose they were.
            self._sync_files()
        except OSError as error:
            raise self._error(error) from error
        if self._failure is not None:
            raise JournalBroken(self._failure)

    @property
    def path(self) -> Path:
        """The part that is written now."""
        return self.folder / (self.name + SUFFIX)

    @property
    def name(self) -> str:
        """The part's name, as the cursor in Postgres knows it."""
        return frames.journal_name(self.boot_id, self.part)

    @property
    def position(self) -> int:
        """Bytes of the present part that hold whole records."""
        return self._position

    @property
    def closed(self) -> bool:
        """Whether `close` was called: nothing is appended any more, and the file is anybody's to ship."""
        return self._file < 0

    @property
    def healthy(self) -> bool:
        """Whether requests may be admitted: what they will use can surely be recorded.

        False as soon as no more room can be reserved; what was admitted before still fits. Full heals by
        itself once there is room; broken does not.
        """
        return not self._full and self._failure is None

    @property
    def problem(self) -> str | None:
        """One sentence on why the journal is not healthy, for operators."""
        if self._failure is not None:
            return self._failure
        return f"no room for the usage journal in {self.folder}; free some space" if self._full else None

    def append(self, usage: record.UsageRecord) -> None:
        """Write one record, whole, with one write(2); when this returns, a killed process loses nothing.

        Raises JournalFull or JournalBroken: then the record is not in the journal, and the response's
        end must not be released.
        """
        if self._failure is not None:
            raise JournalBroken(self._failure)
        data = frames.frame(record.encode(usage))
        end = self._position + len(data)
        if end > self._extend_at:
            self._make_room(end)
            end = self._position + len(data)
        try:
            written = os.pwrite(self._file, data, self._position)
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._position + written)
        except OSError as error:
            # The position stays, so the next record overwrites what this one left half written.
            raise self._error(error) from error
        self._position = end
        self.appended.set()
        self._dirty.set()

    def rotate(self) -> None:
        """Begin the next part; the present one becomes anybody's to ship.

        Raises OSError when no file can be made; then the present part stays.
        """
        self.part += 1
        old = (self._file, self._position)
        try:
            self._open_part()
        except OSError:
            self.part -= 1
            raise
        self._retired.append(old)
        fcntl.flock(old[0], fcntl.LOCK_UN)
        self.appended.set()
        self._dirty.set()

    async def run(self) -> None:
        """Force appended records to the disk, off the event loop, until cancelled.

        Raises JournalBroken when the disk refuses: what it then holds is unknown (a second fsync may lie),
        so the process should stop taking requests and end.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_FULL_S if self._full else None):
                    await self._dirty.wait()
            if self._full:
                self._reserve()
            await asyncio.sleep(SYNC_INTERVAL_S)
            await self.sync()

    async def sync(self) -> None:
        """Force everything appended so far to the disk. Raises JournalBroken when the disk refuses."""
        self._dirty.clear()
        try:
            await asyncio.to_thread(self._sync_files)
        except OSError as error:
            self._failure = f"the usage journal {self.path} could not be forced to the disk: {error}"
            raise JournalBroken(self._failure) from error

    def close(self) -> None:
        """Force everything to the disk, give the reserved room back and let the file go; safe to repeat."""
        with self._file_lock:
            if self._file < 0:
                return
            self._failure = self._failure or f"the usage journal {self.path} is closed"
            self._retired.append((self._file, self._position))
            self._file = -1
            try:
                self._close_retired()
            except OSError as error:
                raise JournalBroken(f"the usage journal {self.path} did not close well: {error}") from error

    def _open_part(self) -> None:
        hidden = self.path.with_suffix(".tmp")
        file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it has its name: nobody may take it for a dead process's file.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            start = frames.header(self.boot_id, self.part)
            if os.pwrite(file, start, 0) < len(start):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(hidden))
            hidden.rename(self.path)
        except OSError:
            os.close(file)
            hidden.unlink(missing_ok=True)
            raise
        self._file = file
        self._position = self._reserved = len(start)
        self._reserve()

    def _make_room(self, end: int) -> None:
        if end > self._part_bytes:
            try:
                self.rotate()
            except OSError:
                # Too many open files, say: the present part is still good, so it grows on.
                self._part_bytes += self._reserve_bytes
                self._reserve()
        else:
            self._reserve()

    def _reserve(self) -> None:
        """Keep room ahead of the position; where there is none left, admission has to stop."""
        try:
            os.posix_fallocate(self._file, self._reserved, self._reserve_bytes)
            self._full = False
        except OSError as error:
            # Not tried again by appends, which use what is reserved; `run` tries it every second.
            self._extend_at = self._part_bytes
            self._full = False
            if error.errno not in NO_RESERVING:
                self._error(error)
            return
        self._reserved += self._reserve_bytes
        self._extend_at = min(self._part_bytes, self._reserved - self._reserve_bytes // 2)

    def _error(self, error: OSError) -> JournalError:
        """Take note of what the disk said, and put it into our words."""
        if error.errno in NO_ROOM:
            self._full = True
            # `run` has to try again, also when nothing is appended any more because of this.
            self._dirty.set()
            return JournalFull(f"no room for the usage journal in {self.folder}; free some space ({error})")
        self._failure = f"the usage journal in {self.folder} failed: {error}"
        return JournalBroken(self._failure)

    def _sync_files(self) -> None:
        """Runs in a thread; the lock keeps `close` from closing a file under it."""
        with self._file_lock:
            if self._file >= 0:
                os.fdatasync(self._file)
            self._close_retired()

    def _close_retired(self) -> None:
        while self._retired:
            file, position = self._retired.pop(0)
            try:
                os.fdatasync(file)
                os.ftruncate(file, position)
            finally:
                os.close(file)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
