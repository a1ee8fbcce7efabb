"""The state folder: everything Penstock keeps on this machine, used by one `penstock up` at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.local import problems

LAYOUT = "penstock state 1\n"
"""Content of the file `layout`, by which a state folder is known as one."""

FOLDERS = ("postgres", "valkey", "journal", "engines", "logs", "metrics", "secrets", "models", "adapters")
FREE_BYTES_MIN = 256 * 1024 * 1024
"""An empty database is 40 MB; less than this soon stops the ledger in the middle of a commit."""

RUN_FILE = "run.json"
"""How the commands beside a running `penstock up` find its database."""


class Run(msgspec.Struct, frozen=True):
    """What a running `penstock up` writes down for the commands beside it."""

    pid: int
    base_url: str
    database_url: str
    redis_url: str
    public_url: str
    """Where clients reach it, as PENSTOCK_PUBLIC_URL says or as it listens."""


@dataclass(frozen=True)
class State:
    """A state folder that is ours until `close`."""

    home: Path
    lock: int

    @property
    def logs(self) -> Path:
        """Where every child process writes its log."""
        return self.home / "logs"

    def announce(self, run: Run) -> None:
        """Write down how to reach what runs, for `penstock keys` and its like; only we may read it."""
        fresh = self.home / f".{RUN_FILE}"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(run))
        fresh.rename(self.home / RUN_FILE)

    def forget_process(self, pid: int) -> None:
        """Take a dead process out of the figures that count the living: the `live` gauges."""
        for figures in (self.home / "metrics").glob(f"gauge_live*_{pid}.db"):
            figures.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another `penstock up` have the folder."""
        (self.home / RUN_FILE).unlink(missing_ok=True)
        os.close(self.lock)


def running(home: Path) -> Run | None:
    """Read what a running `penstock up` wrote down; None when none runs on this folder."""
    try:
        run = msgspec.json.decode((home / RUN_FILE).read_bytes(), type=Run)
    except (OSError, msgspec.MsgspecError):
        return None
    return run if Path(f"/proc/{run.pid}").exists() else None


def take(home: Path) -> State:
    """Make or open the state folder and lock it until `close` or our end.

    Raises StateError when it is a file, belongs to something else, cannot be written, has too little free
    disk, was made by a newer Penstock, or is in use by another `penstock up`.
    """
    try:
        return _take(home)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise problems.StateError(
                f"the disk of {home} is full: free some space, or set PENSTOCK_HOME"
            ) from None
        raise problems.StateError(
            f"the state folder {home} cannot be used ({error.strerror}: {error.filename}): make it "
            "writable for this account, or set PENSTOCK_HOME to a folder that is"
        ) from error


def _take(home: Path) -> State:
    if home.exists() and not home.is_dir():
        raise problems.StateError(f"{home} is a file: set PENSTOCK_HOME to a folder")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_content(home)
    free = shutil.disk_usage(home).free
    if free < FREE_BYTES_MIN:
        raise problems.StateError(
            f"the disk of {home} has {free // 2**20} MiB free and Penstock needs {FREE_BYTES_MIN // 2**20}: "
            "free some space, or set PENSTOCK_HOME to a folder on another disk"
        )
    lock = _lock(home)
    try:
        (home / "layout").write_text(LAYOUT, encoding="ascii")
        for name in FOLDERS:
            (home / name).mkdir(mode=0o700, exist_ok=True)
        # A run that was killed left these: nobody should follow it to a database that is gone, or count its
        # processes among the living.
        (home / RUN_FILE).unlink(missing_ok=True)
        for figures in (home / "metrics").glob("*.db"):
            figures.unlink()
    except BaseException:
        os.close(lock)
        raise
    return State(home, lock)


def _check_content(home: Path) -> None:
    layout = home / "layout"
    if layout.is_file():
        if (found := layout.read_text(encoding="ascii", errors="replace")) != LAYOUT:
            raise problems.StateError(
                f"{home} has the layout {found.strip()[:40]!r}, which this Penstock does not know: upgrade, "
                "or set PENSTOCK_HOME to another folder"
            )
        return
    foreign = sorted(entry.name for entry in home.iterdir() if entry.name not in (*FOLDERS, "lock"))
    if foreign:
        raise problems.StateError(
            f"{home} is no state folder of Penstock (it holds {foreign[0]}): "
            "set PENSTOCK_HOME to an empty folder"
        )


def _lock(home: Path) -> int:
    """Lock the folder; the kernel lets go when we end, and no child inherits it."""
    handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise problems.StateError(
            f"another `penstock up` (process {holder}) uses {home}: stop it, or set "
            "PENSTOCK_HOME to run a second"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle
