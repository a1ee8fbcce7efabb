from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import registry

OPS = Path(__file__).parents[3] / "ops"


def test_a_file_in_the_suite_is_a_benchmark() -> None:
    assert registry.names() == sorted(file.stem for file in (OPS / "benchmarks" / "suite").glob("*.py"))
    assert "relay" in registry.names()


@pytest.mark.parametrize("name", registry.names())
def test_every_benchmark_measures_and_says_what(name: str) -> None:
    benchmark = registry.load(name)

    assert inspect.iscoroutinefunction(benchmark.measure)
    assert benchmark.__doc__


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "rely"], cwd=OPS, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert "'rely'" in ended.stderr
    assert "relay" in ended.stderr
