"""Shared memory of engines, named after them, so that what a killed engine leaves can be found and removed.

vLLM's processes pass their messages through shared memory of hundreds of MiB (sparse, but filled page by page).
A killed engine cannot remove it, and Python's own names do not tell whose it was.
"""

from __future__ import annotations

from multiprocessing import shared_memory
from pathlib import Path
from typing import Final

FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where shm_open(3) keeps it on Linux


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


def _prefix(pid: int) -> str:
    return f"p{pid}_"
