"""The files of adapters: received in a place of their own, then kept under their digest, whole or not at all.

adapters/<digest>/{adapter_config.json, adapter_model.safetensors}   never changed
adapters/.incoming/<random>/, <random>.lock                          an upload; locked while it runs
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from penstock.adapters.errors import NoRoom
from penstock_base import ids

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
INCOMING: Final = ".incoming"
STRAY_S: Final = 3600.0
"""A lock without a folder is left by a process that was killed between making the two."""
ROOM_BYTES: Final = 512 * 2**20
"""Left free on the disk: the journals and the database are on it too."""


class Incoming:
    """The folder of one upload; whatever becomes of the upload, it is gone afterwards.

    A process that is killed leaves it unlocked, and the next `Store.tidy` removes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = folder / WEIGHTS
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._room = 0
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Before the folder is there: one that nobody has locked is abandoned.
        self._lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            folder.mkdir(mode=0o700)
            self._file = self.weights.open("xb")
        except OSError:
            self._leave()
            raise

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._leave()

    @property
    def weights_sha256(self) -> str:
        """The digest of what came so far."""
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> None:
        """Take more of the weights; raises NoRoom."""
        with _room():
            if self.size_bytes >= self._room:
                check_room(self.folder, len(data))
                self._room = self.size_bytes + 2**24
            self._file.write(data)
        self._sha256.update(data)
        self.size_bytes += len(data)

    def close(self) -> None:
        """Let nothing more come, and have all of it on the disk; raises NoRoom."""
        with _room():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _leave(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        _lock_of(self.folder).unlink(missing_ok=True)
        os.close(self._lock)


class Store:
    """All adapters' files of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def receive(self) -> Incoming:
        """Begin an upload; raises NoRoom."""
        with _room():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Incoming(self.folder / INCOMING / ids.random_text(16))

    def keep(self, incoming: Incoming, config: bytes) -> str:
        """Keep what came, with a config of our own making; its digest. Raises NoRoom."""
        digest = digest_of(config, incoming.weights_sha256)
        place = self.folder / digest
        with _room():
            _write(incoming.folder / CONFIG, config)
            _sync(incoming.folder)
            try:
                incoming.folder.rename(place)
            except OSError as error:
                # The same adapter is here already: content says all there is to say of it.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            _sync(self.folder)
        return digest

    def remove(self, digest: str) -> None:
        """Remove an adapter that nobody has any more."""
        place, leaving = self.folder / digest, self.folder / INCOMING / f"{digest}.{ids.random_text(6)}"
        leaving.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            # Whole or not at all here too: a reader finds both files, or none.
            place.rename(leaving)
            shutil.rmtree(leaving, ignore_errors=True)

    def older_than(self, age_s: float) -> list[str]:
        """The digests of what was kept longer ago than that."""
        before_s = time.time() - age_s
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return [each.name for each in found if each.name != INCOMING and each.stat().st_mtime < before_s]

    def tidy(self) -> int:
        """Remove what uploads left that were cut short by a kill; how many there were."""
        folder = self.folder / INCOMING
        found = list(folder.iterdir()) if folder.is_dir() else []
        left = [each for each in found if each.is_dir() and _abandoned(each)]
        for each in left:
            shutil.rmtree(each, ignore_errors=True)
            _lock_of(each).unlink(missing_ok=True)
        stray = time.time() - STRAY_S
        for lock in found:
            with contextlib.suppress(FileNotFoundError):
                if lock.is_file() and not lock.with_suffix("").exists() and lock.stat().st_mtime < stray:
                    lock.unlink()
        return len(left)


def digest_of(config: bytes, weights_sha256: str) -> str:
    """Name an adapter by its content: 64 hexadecimal digits."""
    return hashlib.sha256(config + b"\0" + weights_sha256.encode()).hexdigest()


def check_room(folder: Path, size_bytes: int) -> None:
    """Raise NoRoom where `size_bytes` more would fill the disk."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if size_bytes + ROOM_BYTES > free:
        raise NoRoom(
            f"this platform's disk has no room for {size_bytes} bytes of an adapter; nothing of it was kept"
        )


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoRoom("this platform's disk is full; nothing of the adapter was kept") from error


def _write(file: Path, data: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _abandoned(folder: Path) -> bool:
    """Whether no process works on it: the kernel lets go of a lock when its holder ends."""
    try:
        lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
