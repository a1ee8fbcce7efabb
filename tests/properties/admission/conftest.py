"""The pool in virtual time is the benchmarks' own: it is imported from the folder beside their command."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "ops"))
