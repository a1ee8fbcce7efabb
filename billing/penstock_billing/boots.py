"""What processes leave in a journal folder, and when it is sure that nothing more can come of one of them.

The files of one process begin with its boot id. Each has one state, which locks and names tell alone:

    lives       it holds a lock on its newest journal part
    gone        it does not; whoever is next makes its progress file the closing part of its journal
    settled     gone, no progress file, nothing set aside, and every part of it shipped to its end

Only a settled process's leases and claims may be released (`billing.gateway_boot.settled_at`). Files are
kept for a while after that, so a process that settles others may die between any two steps.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from penstock_base import queries
from penstock_billing import frames
from penstock_billing.journal import SUFFIX

SQL = queries.load("penstock_billing", "boots.sql")

PROGRESS_SUFFIX = ".progress"
QUARANTINE_SUFFIX = ".quarantined"
HIDDEN_SUFFIX = ".tmp"
"""A file that is being made; its name without this is given to it when it is whole."""
CLOSING_PART = 2**32 - 1
"""The part that others write for a process that is gone. None of its own ever has this number."""

NAME = re.compile(
    r"(?P<boot>[0-9a-f]{32})(-(?P<part>\d+)\.journal|\.progress)(?P<quarantined>\.quarantined)?", re.ASCII
)


class Remains(msgspec.Struct):
    """The files of one process, in one folder."""

    parts: dict[int, Path] = {}
    progress: Path | None = None
    quarantined: list[Path] = []

    @property
    def closed(self) -> bool:
        """Whether the closing part was written, whatever became of it."""
        return any(
            path.name.removesuffix(QUARANTINE_SUFFIX).endswith(f"-{CLOSING_PART}{SUFFIX}")
            for path in [*self.parts.values(), *self.quarantined]
        )

    @property
    def newest_part(self) -> Path | None:
        """The last part that the process wrote itself, so the one whose lock says whether it lives."""
        own = [number for number in self.parts if number != CLOSING_PART]
        return self.parts[max(own)] if own else None

    @property
    def last_parts(self) -> set[Path]:
        """The parts that tell, as long as they are there, that there was such a process."""
        return {path for path in (self.newest_part, self.parts.get(CLOSING_PART)) if path is not None}


def look(folder: Path) -> dict[str, Remains]:
    """List the files of a folder by boot id."""
    remains: dict[str, Remains] = {}
    for path in folder.iterdir():
        if (found := NAME.fullmatch(path.name)) is None:
            continue
        of_boot = remains.setdefault(found["boot"], Remains())
        if found["quarantined"]:
            of_boot.quarantined.append(path)
        elif found["part"]:
            of_boot.parts[int(found["part"])] = path
        else:
            of_boot.progress = path
    return remains


def gone(folder: Path, boot: str) -> bool:
    """Whether a process can write no more. False also while another looks at its newest file: ask again."""
    newest = _newest(folder, boot)
    if newest is None:
        # A living process has a part, under its name and locked, before it has anything else.
        return True
    with locked(newest) as free:
        # It may have begun the next part, which lets this one go, since we looked; then there is a newer.
        return free and _newest(folder, boot) == newest


def complete(folder: Path, boot: str, shipped: Iterable[Path]) -> bool:
    """Whether a process is gone and left nothing but the parts `shipped`, each known to be shipped whole.

    A listing may miss what is renamed meanwhile, but not that a second one, begun later, is the same:
    a closing part has its name before the progress file that it replaces is deleted.
    """
    first = look(folder).get(boot)
    if first is None or first.progress or first.quarantined or not first.parts:
        return False
    if not set(first.parts.values()) <= set(shipped):
        return False
    return gone(folder, boot) and look(folder).get(boot) == first


def mark(folder: Path, boot: str) -> None:
    """Leave a trace of a process all of whose files are set aside, so that it can be settled afterwards.

    The trace is an empty closing part. Does nothing while there is, or may be, any other file of it.
    """
    first = look(folder).get(boot)
    if first is None or first.parts or first.progress or not first.quarantined or first.closed:
        return
    with locked(first.quarantined[0]) as ours:
        # As in `complete`: what the first listing missed, the second has.
        if ours and look(folder).get(boot) == first:
            close_journal(folder, boot, [])


def close_journal(folder: Path, boot: str, bodies: Iterable[bytes]) -> Path:
    """Write the closing part of a journal whose process is gone, whole or not at all.

    The caller makes sure that there is none yet and that nobody else is about to. Raises OSError.
    """
    path = folder / f"{frames.journal_name(bytes.fromhex(boot), CLOSING_PART)}{SUFFIX}"
    hidden = path.with_suffix(HIDDEN_SUFFIX)
    with hidden.open("wb") as file:
        file.write(frames.header(bytes.fromhex(boot), CLOSING_PART))
        for body in bodies:
            file.write(frames.frame(body))
        file.flush()
        os.fsync(file.fileno())
    hidden.rename(path)
    # What it replaces is deleted next: the disk must not know of that and not of this.
    sync_folder(folder)
    return path


def sync_folder(folder: Path) -> None:
    """Force to the disk which files a folder holds."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Take a file whose process is gone; False when it lives, or another shipper is at the file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # Renamed or deleted between opening and locking: it was another's turn.
        yield path.exists() and os.path.samestat(os.fstat(file), path.stat())
    finally:
        os.close(file)


def _newest(folder: Path, boot: str) -> Path | None:
    return look(folder).get(boot, Remains()).newest_part
