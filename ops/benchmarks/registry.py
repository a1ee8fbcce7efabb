"""Every benchmark there is: a file of the folder `suite` with a `measure`, under the file's name."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from benchmarks.figures import Figure

from penstock.local.steps import Steps

SUITE = Path(__file__).parent / "suite"


@dataclass(frozen=True)
class Run:
    """What a benchmark is given."""

    folder: Path
    """An empty folder of its own, removed afterwards."""
    steps: Steps
    """Shows what is being done, on standard error."""
    peers: bool
    """Also measure other people's software, installing it where it is missing."""
    full: bool = False
    """Take the long way where there is a short one: minutes in place of seconds, millions for thousands."""


class Benchmark(Protocol):
    """What a file of the suite must have; its docstring is its description."""

    def measure(self, run: Run) -> Awaitable[list[Figure]]:
        """Take every figure; raises Unmeasurable."""
        ...


def names() -> list[str]:
    """Name every benchmark."""
    return sorted(file.stem for file in SUITE.glob("*.py") if not file.stem.startswith("_"))


def load(name: str) -> Benchmark:
    """Import one benchmark by its name."""
    return cast("Benchmark", importlib.import_module(f"benchmarks.suite.{name}"))
