from __future__ import annotations

import random
from pathlib import Path

import pytest

from penstock_engines.device import count_gpus, engine_build
from penstock_engines.replica import back_off_s


def test_gpus_are_counted_by_their_device_files(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert count_gpus(tmp_path) == 2
    assert count_gpus(tmp_path / "none") == 0


def test_a_build_that_is_not_installed_is_none() -> None:
    assert engine_build("no-such-distribution") is None
    assert engine_build("pytest") is not None


@pytest.mark.parametrize(
    ("failures", "least_s", "most_s"), [(1, 0.75, 1.25), (3, 3, 5), (7, 45, 60), (99, 45, 60)]
)
def test_restarts_come_ever_more_seldom_but_at_least_once_a_minute(
    failures: int, least_s: float, most_s: float
) -> None:
    chance = random.Random(7)
    pauses = [back_off_s(failures, chance) for _ in range(200)]
    assert least_s <= min(pauses) <= max(pauses) <= most_s
    assert max(pauses) - min(pauses) > 0.1 * least_s
