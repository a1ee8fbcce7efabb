"""The machine's own facts, as the kernel and the GPU driver tell them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Instructions that vLLM's CPU kernels use, plainest first (names of /proc/cpuinfo)."""


@dataclass(frozen=True)
class Processor:
    """A processor as far as engines care."""

    model: str
    cores: int
    """Cores that this process may use."""
    features: tuple[str, ...]
    """Those of FEATURES that it has."""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Read what the kernel says of the first core."""
    facts: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = set(facts.get("flags", "").split())
    return Processor(
        model=facts.get("model name", "unknown processor"),
        cores=len(os.sched_getaffinity(0)),
        features=tuple(feature for feature in FEATURES if feature in flags),
    )


def memory_bytes(
    meminfo: Path = Path("/proc/meminfo"), control_group: Path = Path("/sys/fs/cgroup")
) -> tuple[int, int]:
    """Tell total and free memory; where a container's limit is lower, that limit and what is left of it."""
    facts = dict(
        line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line
    )
    total, free = (int(facts[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    try:
        limit = int((control_group / "memory.max").read_text(encoding="ascii"))
        used = int((control_group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return total, free
    return min(total, limit), min(free, max(0, limit - used))


@dataclass(frozen=True)
class GpuFacts:
    """A GPU as its driver tells of it."""

    index: int
    name: str
    memory_mib: int


def gpus() -> list[GpuFacts]:
    """Ask nvidia-smi for the GPUs; empty when it does not answer."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"],  # noqa: S607 - as on PATH
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in answer.stdout.splitlines() if line.strip()]
    return [GpuFacts(int(index), name, int(memory_mib)) for index, name, memory_mib in rows]
