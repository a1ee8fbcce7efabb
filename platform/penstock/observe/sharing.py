"""How the processes of one machine share their figures: prometheus-client's files, one set per process.

Counters of a process that ended still count; its gauges would tell of what is no more. Imports nothing of
prometheus-client, which decides at its own import whether figures are shared.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share(folder: Path) -> None:
    """Share this process's figures through the folder, and forget the gauges of processes that ended."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[VARIABLE] = str(folder)
    forget_ended(folder)


def forget_ended(folder: Path) -> None:
    """Drop the gauges of processes that ended: a killed one cannot do so itself."""
    for path in folder.glob("gauge_live*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)
