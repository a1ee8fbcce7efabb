"""No process outlives the one it works for: each asks the kernel to be killed with its parent (prctl(2))."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which must be its parent, ends.

    Ends this process at once where the parent is gone already, since then no signal would come. The kernel
    means the thread that started this process, so only one that lasts as long as its process may do that.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def children_die_with_us() -> None:
    """From now on every process forked from this one, and from those in turn, dies with its parent."""
    parents: list[int] = []

    def remember() -> None:
        parents[:] = [os.getpid()]

    def follow() -> None:
        die_with(parents[0])

    os.register_at_fork(before=remember, after_in_child=follow)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parents end, so that they can be reaped where PID 1 does not."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
