"""The shipped models do what their cards say, measured as their own script measures them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "catalog" / "demo"


def test_every_rate_reaches_its_bar_and_sixty_topics_are_answered_in_other_words() -> None:
    ran = subprocess.run(
        [sys.executable, str(DEMO / "evaluate.py")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.search(r"topics with most held-out paraphrases right .*? (\d+)/\d+", ran.stdout)
    assert found is not None
    assert int(found.group(1)) >= 60


def test_they_fit_into_a_repository() -> None:
    for name in ("chat", "embed"):
        assert sum(path.stat().st_size for path in (DEMO / name).rglob("*") if path.is_file()) <= 8_000_000
