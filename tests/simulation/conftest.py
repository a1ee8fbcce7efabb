"""The simulated world is found by its folder: there are no packages under tests/."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world.substitutes import substituted


@pytest.fixture
def simulated() -> Iterator[None]:
    """Bind the code under test to the simulated world, for one test."""
    with substituted():
        yield
