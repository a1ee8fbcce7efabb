"""A disk with a page cache: what was written survives the process, what was forced survives the power cut.

A power cut keeps of the rest a random part: some writes whole, one torn, or (where the disk reordered) a
later one without an earlier. It speaks the few calls of `os` and `fcntl` that the journal makes, with their
errors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from world.loop import CURRENT, Died, Process, alive

ROOT = "/host"
SECTOR_BYTES = 512


class Inode:
    """A file's content, as programs see it and as the platters have it."""

    __slots__ = ("allocated", "content", "doubtful", "durable", "inode", "links", "locked_by", "unforced")

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.content = bytearray()
        self.durable = b""
        self.unforced: list[tuple[int, bytes]] = []
        """Writes since the last time it was forced: offset and bytes."""
        self.allocated = 0
        """Bytes from the start that have room on the disk whatever happens."""
        self.links = 1
        self.locked_by: int | None = None
        self.doubtful = False
        """A force failed: what it was to force may never come to the platters, whatever later ones say."""

    def write(self, offset: int, data: bytes) -> None:
        if len(self.content) < offset:
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(data)] = data
        self.unforced.append((offset, bytes(data)))

    def force(self) -> None:
        if not self.doubtful:
            self.durable = bytes(self.content)
        self.unforced.clear()


class Stat:
    """As much of `os.stat_result` as is asked for."""

    __slots__ = ("st_ino", "st_mtime", "st_size")

    def __init__(self, inode: Inode) -> None:
        self.st_ino = inode.inode
        self.st_size = len(inode.content)
        self.st_mtime = 0.0


class Disk:
    """One host's disk."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self._rng = rng
        self.entries: dict[str, Inode] = {}
        """Paths as programs see them."""
        self._forced_entries: dict[str, Inode] = {}
        self.folders: set[str] = set()
        self.full = False
        """No new block can be had; what is allocated can be written."""
        self.failing = False
        """The next force fails, and writes too."""
        self.forced_at_s: dict[int, float] = {}
        """By inode, up to which moment all that was written is on the platters."""
        self.inodes = 0

    def new(self) -> Inode:
        self.inodes += 1
        return Inode(self.inodes)

    def force_entries(self, folder: str) -> None:
        """What fsync of a folder does."""
        prefix = folder + "/"
        kept = {path: inode for path, inode in self._forced_entries.items() if not path.startswith(prefix)}
        kept |= {path: inode for path, inode in self.entries.items() if path.startswith(prefix)}
        self._forced_entries = kept

    def power_cut(self) -> None:
        """Lose what was not forced, or a random part of it."""
        rng = self._rng
        entries = dict(self._forced_entries)
        for path in sorted(self.entries.keys() | entries.keys()):
            # A change of a folder that was not forced: it came through, or not.
            if self.entries.get(path) is not entries.get(path) and rng.random() < 0.5:
                if path in self.entries:
                    entries[path] = self.entries[path]
                else:
                    del entries[path]
        for inode in {id(each): each for each in entries.values()}.values():
            self._tear(inode)
        self.entries = entries
        self._forced_entries = dict(entries)

    def _tear(self, inode: Inode) -> None:
        """Make a file what the platters have, and a part of what they were about to get."""
        rng = self._rng
        torn = Inode(inode.inode)
        torn.content = bytearray(inode.durable)
        size = max(len(inode.content), inode.allocated)
        if not inode.doubtful:
            if rng.random() < 0.1:
                arrived = [write for write in inode.unforced if rng.random() < 0.5]
            else:
                arrived = inode.unforced[: rng.randint(0, len(inode.unforced))]
                if len(arrived) < len(inode.unforced):
                    offset, data = inode.unforced[len(arrived)]
                    # Sectors are written whole or not at all, as disks promise.
                    ends = range(SECTOR_BYTES - offset % SECTOR_BYTES, len(data), SECTOR_BYTES)
                    arrived.append((offset, data[: rng.choice([0, *ends])]))
            for offset, data in arrived:
                torn.write(offset, data)
        if len(torn.content) < size and rng.random() < 0.7:
            torn.content.extend(bytes(size - len(torn.content)))  # reserved room reads as zeros
        inode.content = torn.content
        inode.durable = bytes(torn.content)
        inode.unforced = []
        inode.locked_by = None


class Disks:
    """Every host's disk of a run, and every open file: what stands behind `os` in the code that is tested."""

    def __init__(self, loop: Any, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.kill: Callable[[Any], None] = lambda _: None
        self.by_name: dict[str, Disk] = {}
        self._open: dict[int, tuple[Disk, Inode, Process | None, str]] = {}
        self._next = 1000

    @contextlib.contextmanager
    def changing(self, path: str) -> Iterator[None]:
        """Around each change of a disk: a process may be killed before or after it."""
        alive()
        process = CURRENT.get()
        counts = process is not None and process.changes_left and path.endswith(process.changes_of)
        due = counts and process.changes_left == 1
        if counts:
            process.changes_left -= 1
        if due and self.rng.random() < 0.5:
            self.kill(process)
            raise Died
        yield
        if due:
            self.kill(process)
            raise Died

    def disk(self, path: str) -> Disk:
        return self.by_name[path.split("/", 3)[2]]

    def open(self, path: str, flags: int) -> int:
        alive()
        disk = self.disk(path)
        if path in disk.folders:
            inode = disk.new()
        elif (found := disk.entries.get(path)) is not None:
            if flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, "file exists", path)
            inode = found
        elif flags & os.O_CREAT:
            if disk.full:
                raise OSError(errno.ENOSPC, "no space left on device", path)
            inode = disk.entries[path] = disk.new()
        else:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if flags & os.O_TRUNC:
            inode.content.clear()
        self._next += 1
        process = CURRENT.get()
        self._open[self._next] = (disk, inode, process, path)
        return self._next

    def close(self, file: int) -> None:
        alive()
        _, inode, _, _ = self._take(file)
        del self._open[file]
        if inode.locked_by == file:
            inode.locked_by = None

    def close_all_of(self, process: Process) -> None:
        """What the kernel does when a process ends."""
        for file, (_, inode, owner, _) in list(self._open.items()):
            if owner is process:
                del self._open[file]
                if inode.locked_by == file:
                    inode.locked_by = None

    def _take(self, file: int) -> tuple[Disk, Inode, Process | None, str]:
        found = self._open.get(file)
        if found is None:
            raise OSError(errno.EBADF, "bad file descriptor")
        return found

    def inode(self, file: int) -> Inode:
        return self._take(file)[1]

    def pwrite(self, file: int, data: bytes, offset: int) -> int:
        with self.changing(self._take(file)[3].removesuffix(".tmp")):
            return self._pwrite(file, data, offset)

    def _pwrite(self, file: int, data: bytes, offset: int) -> int:
        disk, inode, _, path = self._take(file)
        if disk.failing:
            raise OSError(errno.EIO, "input/output error", path)
        end = offset + len(data)
        if disk.full and end > max(inode.allocated, len(inode.content)):
            room = max(inode.allocated, len(inode.content)) - offset
            if room <= 0:
                raise OSError(errno.ENOSPC, "no space left on device", path)
            inode.write(offset, data[:room])
            return room
        inode.write(offset, data)
        return len(data)

    def pread(self, file: int, size: int, offset: int) -> bytes:
        alive()
        return bytes(self._take(file)[1].content[offset : offset + size])

    def allocate(self, file: int, offset: int, size: int) -> None:
        alive()
        disk, inode, _, path = self._take(file)
        end = offset + size
        if disk.full and end > max(inode.allocated, len(inode.content)):
            raise OSError(errno.ENOSPC, "no space left on device", path)
        inode.allocated = max(inode.allocated, end)
        if len(inode.content) < end:
            inode.content.extend(bytes(end - len(inode.content)))

    def force(self, file: int) -> None:
        with self.changing(self._take(file)[3]):
            self._force(file)

    def _force(self, file: int) -> None:
        disk, inode, _, path = self._take(file)
        if path in disk.folders:
            disk.force_entries(path)
            return
        if disk.failing:
            inode.doubtful = True
            raise OSError(errno.EIO, "input/output error", path)
        inode.force()
        disk.forced_at_s[inode.inode] = self.loop.time()

    def truncate(self, file: int, size: int) -> None:
        alive()
        inode = self._take(file)[1]
        del inode.content[size:]
        inode.content.extend(bytes(max(0, size - len(inode.content))))
        inode.allocated = min(inode.allocated, size)

    def lock(self, file: int) -> None:
        """Lock a file or raise BlockingIOError."""
        alive()
        inode = self._take(file)[1]
        if inode.locked_by not in {None, file}:
            raise BlockingIOError(errno.EAGAIN, "locked by another")
        inode.locked_by = file

    def unlock(self, file: int) -> None:
        alive()
        inode = self._take(file)[1]
        if inode.locked_by == file:
            inode.locked_by = None


DISKS: list[Disks] = []
"""The disks of the run that is going on."""


class Reader:
    """An open file of a simulated path, for reading."""

    __slots__ = ("_inode", "_position")

    def __init__(self, inode: Inode) -> None:
        self._inode = inode
        self._position = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        end = len(self._inode.content) if size < 0 else self._position + size
        data = bytes(self._inode.content[self._position : end])
        self._position += len(data)
        return data


class Writer:
    """An open file of a simulated path, for writing from its start."""

    __slots__ = ("_file", "_position")

    def __init__(self, file: int) -> None:
        self._file = file
        self._position = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        DISKS[-1].close(self._file)

    def write(self, data: bytes) -> int:
        written = DISKS[-1].pwrite(self._file, data, self._position)
        if written < len(data):
            raise OSError(errno.ENOSPC, "no space left on device")
        self._position += written
        return written

    def flush(self) -> None:
        alive()

    def fileno(self) -> int:
        return self._file


class Place(PurePosixPath):
    """A path on a simulated disk: `/host/<name>/…`; what the tested code does with a `Path` works on it."""

    __slots__ = ()

    @property
    def _disk(self) -> Disk:
        alive()
        return DISKS[-1].disk(str(self))

    def _inode(self) -> Inode:
        inode = self._disk.entries.get(str(self))
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self))
        return inode

    def open(self, mode: str = "r") -> Any:
        if mode == "wb":
            return Writer(DISKS[-1].open(str(self), os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        assert mode == "rb", mode
        return Reader(self._inode())

    def read_bytes(self) -> bytes:
        return bytes(self._inode().content)

    def stat(self) -> Stat:
        return Stat(self._inode())

    def exists(self) -> bool:
        disk = self._disk
        return str(self) in disk.entries or str(self) in disk.folders

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        self._disk.folders.add(str(self))

    def rename(self, target: Place) -> Place:
        inode = self._inode()
        with DISKS[-1].changing(str(target)):
            disk = self._disk
            del disk.entries[str(self)]
            disk.entries[str(target)] = inode
        return target

    replace = rename

    def unlink(self, missing_ok: bool = False) -> None:
        if missing_ok and not self.exists():
            return
        self._inode()
        with DISKS[-1].changing(str(self)):
            del self._disk.entries[str(self)]

    def iterdir(self) -> list[Place]:
        """Every file, in the order of making."""
        return self.glob("*")

    def glob(self, pattern: str) -> list[Place]:
        """In the order of making: no more than a file system promises."""
        prefix = str(self) + "/"
        beginning, star, ending = pattern.partition("*")
        assert star, pattern
        prefix += beginning
        return [
            Place(path)
            for path in list(self._disk.entries)
            if path.startswith(prefix) and path.endswith(ending) and "/" not in path[len(prefix) :]
        ]
