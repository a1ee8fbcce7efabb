"""Children of a benchmark, and what process trees cost as the kernel counts it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(roots: Iterable[int]) -> list[int]:
    """The processes given and all that descend from them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_s(roots: Iterable[int]) -> float:
    """User and system time of whole process trees, in seconds, ended and reaped children included.

    Of the living it is the CPU-time clock (clock_getcpuclockid(3)), exact to the nanosecond where
    /proc/PID/stat counts in hundredths of a second; of ended children it is what stat has.
    """
    total = 0.0
    for pid in tree(roots):
        fields = _stat(pid)
        if fields:
            # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of linux/posix-timers.h
            total += time.clock_gettime((~pid << 3) | 2)
            total += (int(fields[13]) + int(fields[14])) / TICKS_PER_S
    return total


def resident_mb(pid: int) -> float:
    """Resident memory of one process in megabytes (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(f"process {pid} has ended")


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (proc(5)); none when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
