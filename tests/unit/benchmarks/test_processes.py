from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.rig import processes

BURN = "import time\nwhile time.process_time() < 0.2: pass"
WAIT = "import sys; print('burnt', flush=True); sys.stdin.read()"


def cpu_of(program: str) -> float:
    """CPU time of a child that has printed its line and waits."""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        used_s = processes.cpu_s([child.pid])
        assert child.stdin is not None
        child.stdin.close()
    return used_s


def test_cpu_time_is_that_of_the_process() -> None:
    assert cpu_of(f"{BURN}\n{WAIT}") >= 0.2


def test_cpu_time_has_children_that_ended() -> None:
    assert cpu_of(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n{WAIT}") >= 0.19


def test_cpu_time_has_children_that_live() -> None:
    inner = f"{BURN}\n{WAIT}"
    assert cpu_of(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {inner!r}])") >= 0.2


def test_the_tree_begins_with_its_root() -> None:
    assert processes.tree([os.getpid()])[0] == os.getpid()


def test_memory_is_in_megabytes() -> None:
    assert 5 < processes.resident_mb(os.getpid()) < 5000
