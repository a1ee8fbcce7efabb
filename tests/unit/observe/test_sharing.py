"""Figures of a machine's processes: counters outlive their process, gauges do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.observe import sharing

COUNT = """
import sys
from pathlib import Path
from penstock.observe import sharing
sharing.share(Path(sys.argv[1]))
from penstock.observe import exposition, metrics
metrics.model_figures("m").in_flight.inc()
metrics.requests("chat", "m", "200", "done").inc()
print(exposition.text().decode())
"""


def count(folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", COUNT, str(folder)], capture_output=True, text=True, check=True
    ).stdout


def test_a_process_that_ended_keeps_its_counts_and_loses_its_gauges(tmp_path: Path) -> None:
    count(tmp_path)
    text = count(tmp_path)
    assert 'penstock_requests_total{model="m",outcome="done",status="200",surface="chat"} 2.0' in text
    assert 'penstock_requests_in_flight{model="m"} 1.0' in text


def test_a_living_process_keeps_its_gauges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sharing.VARIABLE, "")
    mine = tmp_path / f"gauge_livesum_{os.getpid()}.db"
    mine.touch()
    sharing.share(tmp_path)
    assert mine.exists()


def test_a_process_that_is_killed_is_not_told_of_any_more(tmp_path: Path) -> None:
    script = COUNT.replace("print(exposition", "import os; os.kill(os.getpid(), 9); print(exposition")
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -9
    look = "import sys; from penstock.observe import exposition; print(exposition.text().decode())"
    environment = os.environ | {sharing.VARIABLE: str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "penstock_requests_total" in told
    assert 'penstock_requests_in_flight{model="m"}' not in told
