"""Shared memory of engines, named after them, so that what a killed engine leaves can be found and removed.

vLLM's processes pass their messages through shared memory of hundreds of MiB (sparse, filled page by page).
A killed engine cannot remove it, and Python's own names do not tell whose it was.
"""

from __future__ import annotations

import re
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import Final

FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where shm_open(3) keeps it on Linux


OURS: Final = re.compile(r"p([1-9][0-9]{0,6})_[0-9a-f]{4,}")
ORPHAN_S: Final = 3600.0


def name_after(pid: int) -> None:
    """Have this process, and those forked from it, name their shared memory after the engine `pid`.

    Python takes 14 bytes for such a name, fills it up at random, and wants four digits at least for that; a
    process id of seven digits leaves them (PID_MAX_LIMIT is 4,194,304).
    """
    shared_memory._SHM_NAME_PREFIX = f"/{_prefix(pid)}"  # type: ignore[attr-defined]


def remove_left(pid: int) -> int:
    """Remove what the engine `pid`, none of whose processes is left, has not removed itself; how many."""
    removed = 0
    for path in FOLDER.glob(f"{_prefix(pid)}*"):
        path.unlink(missing_ok=True)
        removed += 1
    return removed


def remove_orphans() -> int:
    """Remove what engines left whose keeper was killed with them; how many.

    Only what is older than any start: processes that share it have it mapped by then and keep it, should this
    be the memory of an engine in another container, whose process ids are not ours.
    """
    removed = 0
    for path in FOLDER.glob("p*_*"):
        number = OURS.fullmatch(path.name)
        try:
            old = time.time() - path.stat().st_mtime > ORPHAN_S
            if number is not None and old and not Path(f"/proc/{number[1]}").exists():
                path.unlink()
                removed += 1
        except (FileNotFoundError, PermissionError):
            continue  # gone meanwhile, or someone else's
    return removed


def _prefix(pid: int) -> str:
    return f"p{pid}_"
